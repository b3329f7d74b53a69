"""Overlays by the digest of their checkpoint: those used last in memory, the rest in a folder."""

import threading
from collections import OrderedDict
from pathlib import Path

from service.domain.errors import Corrupt, Gone
from service.domain.version import Version, VersionStatus
from service.lm import checkpoint
from service.lm.overlay import EMPTY, Overlay
from service.store import versions
from service.store.session import Store

RESIDENT = 16  # overlays kept in memory; a few megabytes each


class Overlays:
    """Reads and writes checkpoints. The digest None stands for the empty overlay, which has no file."""

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self.folder = folder
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self._resident: OrderedDict[str, Overlay] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, digest: str | None) -> Overlay:
        """The overlay with this digest. Raises Corrupt if its file is missing or holds other bytes."""
        if digest is None:
            return EMPTY
        with self._lock:
            if digest in self._resident:
                self._resident.move_to_end(digest)
                return self._resident[digest]
        overlay = self._load(digest)
        self._keep(digest, overlay)
        return overlay

    def save(self, overlay: Overlay) -> str | None:
        """Make an overlay durable and return its digest. The same overlay gives the same bytes: nothing of its version is in
        them.
        """
        if is_empty(overlay):
            return None
        digest = checkpoint.save(overlay, self.folder, meta={"base": self._fingerprint})
        self._keep(digest, overlay)
        return digest

    def of(self, version: Version) -> Overlay:
        """The overlay of a version. Raises Gone if it was collected, Corrupt if its bytes are not what its row says."""
        if version.status is VersionStatus.COLLECTED:
            raise Gone("this version was collected; only its record is kept")
        if version.status is VersionStatus.CORRUPT:
            raise Corrupt("the stored bytes of this version are damaged")
        return self.get(version.digest)

    def forget(self, digest: str) -> None:
        """Drop an overlay from memory."""
        with self._lock:
            self._resident.pop(digest, None)

    def _load(self, digest: str) -> Overlay:
        try:
            return checkpoint.load(self.folder, digest)
        except FileNotFoundError:
            raise Corrupt("the checkpoint of this version is missing") from None

    def _keep(self, digest: str, overlay: Overlay) -> None:
        with self._lock:
            self._resident[digest] = overlay
            self._resident.move_to_end(digest)
            while len(self._resident) > RESIDENT:
                self._resident.popitem(last=False)


def is_empty(overlay: Overlay) -> bool:
    """Whether an overlay changes nothing."""
    return not overlay.tensors and overlay.adapter is None


def overlay_of(store: Store, overlays: Overlays, number: int) -> Overlay:
    """The overlay of a version by number. Raises NotFound, Gone or Corrupt."""
    with store.read() as connection:
        version = versions.get(connection, number)
    return overlays.of(version)
