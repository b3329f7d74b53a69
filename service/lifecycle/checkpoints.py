"""Overlays by the digest of their checkpoint: the latest in memory, the rest where checkpoints are kept.

A checkpoint that cannot be read is a problem of this process, and is tried again. One that can be read and does not have the
digest of its name is damaged, until it changes. Neither is written to the database here: see `damage.py`.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from service.domain.errors import Corrupt, Unreadable
from service.domain.version import Version
from service.lm import checkpoint
from service.lm.checkpoint_store import CheckpointStore
from service.lm.overlay import EMPTY, Overlay
from service.store import versions
from service.store.database import Store

MAX_RESIDENT = 16  # overlays in memory; a few megabytes each


class Checkpoints:
    """Reads and writes checkpoints. The digest None stands for the empty overlay, which has none."""

    def __init__(self, store: CheckpointStore, *, fingerprint: str) -> None:
        self.store = store
        self.fingerprint = fingerprint  # of the base model of this process
        self._lock = threading.Lock()
        self._resident: OrderedDict[str, Overlay] = OrderedDict()
        self._damaged: dict[str, Hashable | None] = {}
        self.store_error: str | None = None

    def check_store(self) -> str | None:
        """Why checkpoints cannot be kept now, or None; also stored in `store_error`. A missing folder belongs to a disk that is
        not mounted.
        """
        self.store_error = self.store.find_fault()
        return self.store_error

    @property
    def damaged_digests(self) -> tuple[str, ...]:
        """The digests whose bytes this process found wrong, and not found right since."""
        with self._lock:
            return tuple(self._damaged)

    def get(self, digest: str | None) -> Overlay:
        """The overlay with this digest. Raises Unreadable if its bytes cannot be read now, Corrupt if they are other bytes."""
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
        """Make an overlay durable and return its digest. The bytes hold nothing of a version, so that the same overlay gives
        the same bytes. Raises Unavailable if the write is refused, or Unreadable if the place is not the store's.
        """
        if is_empty(overlay):
            return None
        fault = self.check_store()
        if fault is not None:  # a file written beside an unmounted disk would be gone when the disk is back
            raise Unreadable(f"The checkpoint could not be written: {fault}.")
        digest = checkpoint.save(overlay, self.store, meta={"base": self.fingerprint})
        self._keep(digest, overlay)
        return digest

    def get_overlay(self, version: Version) -> Overlay:
        """The overlay of a version. Raises Gone if the version was collected or is of another base model, Unreadable or Corrupt
        if its bytes cannot be loaded.

        The bytes decide, and not a row that says `corrupt`: the right bytes may have been put back.
        """
        version.check_kept()
        version.check_base(self.fingerprint)
        return self.get(version.digest)

    def forget(self, digest: str) -> None:
        """Remove an overlay from memory."""
        with self._lock:
            self._resident.pop(digest, None)
            self._damaged.pop(digest, None)

    def discard(self, digest: str) -> bool:
        """Move a checkpoint to the trash, and its overlay out of memory; return whether there was a checkpoint."""
        self.forget(digest)
        return self.store.discard(digest)

    def remove(self, digest: str) -> str | None:
        """Delete a checkpoint for good, and its overlay from memory; return the name that the checkpoint had where it was kept,
        or None if there was none.
        """
        self.forget(digest)
        return self.store.remove(digest)

    def _load(self, digest: str) -> Overlay:
        identity = self.store.identify(digest)
        with self._lock:
            if identity is not None and self._damaged.get(digest) == identity:
                raise Corrupt("the checkpoint of this version is damaged")
        try:
            overlay = self._read_twice(digest)
        except Corrupt:
            with self._lock:
                self._damaged[digest] = identity
            raise
        with self._lock:
            self._damaged.pop(digest, None)
        return overlay

    def _read_twice(self, digest: str) -> Overlay:
        """Read a checkpoint. A missing one is looked for in the trash; wrong bytes are read a second time before they count as
        damaged.
        """
        try:
            return checkpoint.load(self.store, digest)
        except Corrupt:
            return checkpoint.load(self.store, digest)
        except Unreadable:
            self.store.restore(digest)
            return checkpoint.load(self.store, digest)

    def _keep(self, digest: str, overlay: Overlay) -> None:
        with self._lock:
            self._resident[digest] = overlay
            self._resident.move_to_end(digest)
            while len(self._resident) > MAX_RESIDENT:
                self._resident.popitem(last=False)


def is_empty(overlay: Overlay) -> bool:
    """Whether an overlay changes nothing."""
    return not overlay.tensors and overlay.adapter is None


def load_overlay(store: Store, checkpoints: Checkpoints, number: int) -> Overlay:
    """The overlay of a version by number. Raises NotFound, Gone, Unreadable or Corrupt."""
    with store.read() as connection:
        version = versions.get(connection, number)
    return checkpoints.get_overlay(version)
