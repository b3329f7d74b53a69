"""Checkpoints in a folder, which may be shared between machines. The only file that touches the files of checkpoints.

A write is: temporary file, fsync, rename to the digest, fsync of the folder. So no name stands for half a file.

The mark is a small file beside the checkpoints. A folder without a mark is not the expected one: a disk is not mounted, or the
folder is new or another store's.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Corrupt, Unavailable, Unreadable
from service.lm.checkpoint_store import CheckpointState, StoreMark
from service.lm.durable_files import write_durably
from service.lm.file_identity import FileIdentity, identity_of

CHECKPOINT_SUFFIX = ".safetensors"  # of a checkpoint's file name, after the digest
TRASH_FOLDER = "trash"  # the folder of unneeded files, inside the folder of checkpoints
MARK_FILE = "store.json"
MAX_MARK_BYTES = 4096  # bytes
STORE_ID = re.compile(r"[0-9a-z-]{1,36}")
TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.\d+\.[0-9a-f]{8}\.tmp")  # a file whose writer ended before the rename
NOT_MOUNTED = f"the data folder's checkpoints/{MARK_FILE} is not there, so see that the folder is mounted"
CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder as a `CheckpointStore`. The trash is a folder in it. The folder is made by the first write."""

    path: Path

    def find_fault(self) -> str | None:
        """Why the folder cannot be used now, or None. The mount point of a disk that was removed has no mark."""
        return None if (self.path / MARK_FILE).is_file() else NOT_MOUNTED

    def read_mark(self) -> StoreMark | None:
        """The mark of the folder, or None if it has none. Raises Unreadable if the mark cannot be read now or is damaged."""
        try:
            with (self.path / MARK_FILE).open("rb") as file:
                data = json.loads(file.read(MAX_MARK_BYTES))
            mark = StoreMark(data["store"], data["founded"])
            if not (isinstance(mark.store_id, str) and STORE_ID.fullmatch(mark.store_id) and isinstance(mark.is_complete, bool)):
                raise ValueError
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unreadable(
                f"the data folder's checkpoints/{MARK_FILE} cannot be read: {os.strerror(error.errno or 0).lower()}"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Unreadable(f"the data folder's checkpoints/{MARK_FILE} is damaged: restore it, or run `errata adopt`") from None
        return mark

    def write_mark(self, mark: StoreMark) -> None:
        """Write the mark of the folder durably. Raises Unavailable if it cannot be written."""
        data = json.dumps({"store": mark.store_id, "founded": mark.is_complete}).encode()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_durably(self.path / MARK_FILE, data, temporary=f".{MARK_FILE}.{os.urandom(4).hex()}.tmp")
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise Unavailable(
                f"the data folder's checkpoints/{MARK_FILE} cannot be written: {reason}; see that it may be written to"
            ) from None

    def read(self, digest: str) -> bytes:
        """The bytes of a checkpoint's file. Raises Unreadable if no plain file of that name can be read now, Corrupt if the name
        is not a digest: it could lead out of the folder.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Corrupt("A checkpoint's name is not a digest.")
        with _open_plain_file(self._place(digest)) as file:
            return file.read()

    def write(self, digest: str, data: bytes) -> None:
        """Write a checkpoint durably. Raises Unavailable if the disk refuses; then no file is left under a final name."""
        final = self._place(digest)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._move_folder_aside(final)
            write_durably(final, data, temporary=f".{digest}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        except OSError as error:
            raise Unavailable(
                "The checkpoint could not be written; see that the data folder has room and may be written to."
            ) from error

    def identify(self, digest: str) -> FileIdentity | None:
        """The identity of a checkpoint's file, or None if there is no file."""
        try:
            return identity_of(self._place(digest).lstat())
        except OSError:
            return None

    def has(self, digest: str) -> bool:
        """Whether a checkpoint is in its place."""
        return self._place(digest).is_file()

    def verify(self, digest: str) -> tuple[CheckpointState, str]:
        """Read a checkpoint's file, or the one in the trash. Its state, and the reason if it is damaged or unreadable."""
        reason = ""
        for path, state in ((self._place(digest), CheckpointState.GOOD), (self._trashed(digest), CheckpointState.IN_TRASH)):
            try:
                if _sha256(path) == digest:
                    return state, ""
                return CheckpointState.DAMAGED, "its bytes are not those that it was written with"
            except Unreadable as error:
                reason = reason or error.message
        return CheckpointState.UNREADABLE, reason

    def is_older(self, digest: str, age_s: float) -> bool:
        """Whether a checkpoint's plain file was written longer ago than this."""
        return _is_older(self._place(digest), age_s)

    def discard(self, digest: str) -> bool:
        """Move a checkpoint to the trash; its term begins now. Return whether there was one."""
        path = self._place(digest)
        if not path.is_file():
            return False
        (self.path / TRASH_FOLDER).mkdir(exist_ok=True)
        os.utime(path)  # the term in the trash begins now
        path.rename(self._trashed(digest))
        return True

    def restore(self, digest: str) -> bool:
        """Move a checkpoint back from the trash, if it is there and its place is free; return whether it was moved. If the disk
        refuses, it was not: the reason is found by reading the checkpoint.
        """
        trashed, place = self._trashed(digest), self._place(digest)
        try:
            if place.exists() or not trashed.is_file():
                return False
            trashed.rename(place)
        except OSError:
            return False
        return True

    def remove(self, digest: str) -> str | None:
        """Delete a checkpoint for good, wherever it is; return its file's name, or None if there was no file."""
        paths = [path for path in (self._place(digest), self._trashed(digest)) if path.is_file()]
        for path in paths:
            path.unlink()
        return paths[0].name if paths else None

    def empty_trash(self, digests: Collection[str], *, term_s: float) -> list[str]:
        """Delete those of the checkpoints that have been in the trash for the term; return their digests. Other files in the
        trash were never named by a version of this store, and stay.
        """
        trash = self.path / TRASH_FOLDER
        deleted = []
        for path in sorted(trash.glob(f"*{CHECKPOINT_SUFFIX}")) if trash.is_dir() else ():
            if path.stem in digests and time.time() - path.stat().st_mtime > term_s:
                path.unlink()
                deleted.append(path.stem)
        return deleted

    def delete_unfinished(self, age_s: float) -> int:
        """Delete files that were being written when their process ended; they have never been checkpoints."""
        unfinished = [path for path in self.path.iterdir() if TEMPORARY.fullmatch(path.name) and _is_older(path, age_s)]
        for path in unfinished:
            path.unlink(missing_ok=True)
        return len(unfinished)

    def list_unnamed(self, digests: Collection[str]) -> tuple[str, ...]:
        """The paths in the folder of all files but the mark that no digest explains."""
        found = [path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file()] if self.path.is_dir() else []
        return tuple(
            sorted(
                str(path) for path in found if path.name != MARK_FILE and path.name.removesuffix(CHECKPOINT_SUFFIX) not in digests
            )
        )

    def count(self) -> int:
        """The number of checkpoints in the folder."""
        return sum(1 for _ in self.path.glob(f"*{CHECKPOINT_SUFFIX}")) if self.path.is_dir() else 0

    def _place(self, digest: str) -> Path:
        return self.path / f"{digest}{CHECKPOINT_SUFFIX}"

    def _trashed(self, digest: str) -> Path:
        return self.path / TRASH_FOLDER / f"{digest}{CHECKPOINT_SUFFIX}"

    def _move_folder_aside(self, final: Path) -> None:
        """Move a folder with a checkpoint's name to the trash. Errata makes no such folder, and it would block the write."""
        if final.is_dir() and not final.is_symlink():
            trash = self.path / TRASH_FOLDER
            trash.mkdir(exist_ok=True)
            final.rename(trash / f"{final.name}.{os.urandom(4).hex()}.in-the-way")


@contextmanager
def _open_plain_file(path: Path) -> Iterator[BinaryIO]:
    """A plain file, open for reading. Raises Unreadable if it is absent or no plain file, or cannot be opened or read now."""
    try:
        # O_NOFOLLOW: a link in the folder could lead the server to a file elsewhere. O_NONBLOCK: a pipe would block the server.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("A checkpoint cannot be read here: it is not a plain file.")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"A checkpoint cannot be read here: {os.strerror(error.errno or 0).lower()}.") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with _open_plain_file(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_older(path: Path, age_s: float) -> bool:
    """Whether a plain file was written longer ago than this. A file that cannot be looked at was not."""
    try:
        return path.is_file() and time.time() - path.stat().st_mtime > age_s
    except OSError:
        return False
