"""Overlays by the digest of their checkpoint: the latest in memory, the rest in a folder.

A file that cannot be read is a problem of this process, and is tried again. A file that can be read and does not have the
digest of its name is damaged, until it changes. Neither is written to the database here: see `damage.py`.
"""

import threading
from collections import OrderedDict
from pathlib import Path

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.version import Version, VersionStatus
from service.lifecycle.store_identity import MARK_FILE, is_marked
from service.lifecycle.trash import restore
from service.lm import checkpoint
from service.lm.checkpoint_files import CHECKPOINT_SUFFIX
from service.lm.file_identity import FileIdentity, identity_of
from service.lm.overlay import EMPTY, Overlay
from service.store import versions
from service.store.database import Store

NOT_MOUNTED = f"the data folder's checkpoints/{MARK_FILE} is not there, so see that the folder is mounted"
MAX_RESIDENT = 16  # overlays in memory; a few megabytes each


class Checkpoints:
    """Reads and writes checkpoints. The digest None stands for the empty overlay, which has no file."""

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self.folder = folder
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self._resident: OrderedDict[str, Overlay] = OrderedDict()
        self._damaged: dict[str, FileIdentity | None] = {}
        self.folder_error: str | None = None

    def check_folder(self) -> str | None:
        """Why the folder cannot be used now, or None; also stored in `folder_error`. A missing folder belongs to a disk that is
        not mounted.
        """
        self.folder_error = None if is_marked(self.folder) else NOT_MOUNTED
        return self.folder_error

    @property
    def damaged_digests(self) -> tuple[str, ...]:
        """The digests whose bytes this process found wrong, and not found right since."""
        with self._lock:
            return tuple(self._damaged)

    def get(self, digest: str | None) -> Overlay:
        """The overlay with this digest. Raises Unreadable if its file cannot be read now, Corrupt if it holds other bytes."""
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
        the same bytes. Raises Unavailable if the disk refuses the file, or Unreadable if the folder is not the store's.
        """
        if is_empty(overlay):
            return None
        if self.check_folder() is not None:  # a file written beside an unmounted disk would be gone when the disk is back
            raise Unreadable(f"The checkpoint could not be written: {NOT_MOUNTED}.")
        digest = checkpoint.save(overlay, self.folder, meta={"base": self._fingerprint})
        self._keep(digest, overlay)
        return digest

    def get_overlay(self, version: Version) -> Overlay:
        """The overlay of a version. Raises Gone if the version was collected, Unreadable or Corrupt if its bytes cannot be
        loaded.

        The bytes decide, and not a row that says `corrupt`: the right bytes may have been put back.
        """
        if version.status is VersionStatus.COLLECTED:
            raise Gone("this version was collected; only its record is kept")
        return self.get(version.digest)

    def forget(self, digest: str) -> None:
        """Remove an overlay from memory."""
        with self._lock:
            self._resident.pop(digest, None)
            self._damaged.pop(digest, None)

    def _load(self, digest: str) -> Overlay:
        identity = self._identity(digest)
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
        """Read a checkpoint. A missing file is looked for in the trash; wrong bytes are read a second time before they count as
        damaged.
        """
        try:
            return checkpoint.load(self.folder, digest)
        except Corrupt:
            return checkpoint.load(self.folder, digest)
        except Unreadable:
            restore(self.folder, digest)
            return checkpoint.load(self.folder, digest)

    def _identity(self, digest: str) -> FileIdentity | None:
        """The identity of a checkpoint's file, or None if there is no file."""
        try:
            return identity_of((self.folder / f"{digest}{CHECKPOINT_SUFFIX}").lstat())
        except OSError:
            return None

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
