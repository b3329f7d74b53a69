"""Reading every checkpoint that a version needs, and reporting its state. Neither the head nor a model is loaded."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy.engine import Connection

from service.domain.errors import Unreadable
from service.lifecycle.store_identity import MARK_FILE
from service.lm.checkpoint_files import CHECKPOINT_SUFFIX, TRASH_FOLDER, open_plain_file
from service.store import events, heads, versions
from service.store.database import Store
from service.store.events import Event

CHUNK_BYTES = 1 << 22


class CheckpointState(StrEnum):
    """The result of reading a checkpoint."""

    GOOD = "good"
    IN_TRASH = "in the trash"  # and fetched back by whoever needs it
    DAMAGED = "damaged"
    UNREADABLE = "unreadable here"


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint with its state and the versions that need it. The database calls the `marked` versions corrupt."""

    digest: str
    versions: tuple[int, ...]
    marked: tuple[int, ...]
    state: CheckpointState
    detail: str = ""

    @property
    def is_right(self) -> bool:
        """Whether its bytes are there and have the right digest."""
        return self.state in (CheckpointState.GOOD, CheckpointState.IN_TRASH)

    @property
    def is_good(self) -> bool:
        """Whether its bytes are right and the database calls no version of it corrupt."""
        return self.is_right and not self.marked


@dataclass(frozen=True)
class Verification:
    """All checkpoints that versions need, and the names of files that no version needs or needed."""

    checkpoints: tuple[VerifiedCheckpoint, ...]
    unnamed: tuple[str, ...]


def verify(store: Store, folder: Path, *, progress: Callable[[int, int], None] = lambda done, of: None) -> Verification:
    """Read every checkpoint that a version of the store needs. `progress(done, total)` is called before each of them and at the
    end.
    """
    with store.read() as connection:
        needed = versions.read_by_digest(connection)
        named = needed.keys() | versions.read_collected_digests(connection)
    found = []
    for done, (digest, numbers) in enumerate(sorted(needed.items(), key=lambda checkpoint: checkpoint[1])):
        progress(done, len(needed))
        state, detail = _state(folder, digest)
        marked = tuple(number for number, is_corrupt in numbers if is_corrupt)
        found.append(VerifiedCheckpoint(digest, tuple(number for number, _ in numbers), marked, state, detail))
    progress(len(needed), len(needed))
    return Verification(tuple(found), _unnamed_files(folder, named))


def heal(store: Store, verified: Verification, *, author: str, now: datetime) -> list[int]:
    """Unmark the versions whose bytes were read and are right; return their numbers."""
    digests = [checkpoint.digest for checkpoint in verified.checkpoints if checkpoint.marked and checkpoint.is_right]
    with store.write() as connection:
        heads.lock(connection)
        return [number for digest in digests for number in unmark(connection, digest, author=author, now=now)]


def unmark(connection: Connection, digest: str, *, author: str, now: datetime) -> list[int]:
    """Unmark the versions that need a checkpoint whose bytes are right; return their numbers."""
    numbers = versions.unmark_corrupt(connection, digest)
    events.write(connection, [Event(type="version.healed", author=author, version=number) for number in numbers], now=now)
    return numbers


def _state(folder: Path, digest: str) -> tuple[CheckpointState, str]:
    for place, state in ((folder, CheckpointState.GOOD), (folder / TRASH_FOLDER, CheckpointState.IN_TRASH)):
        try:
            if _sha256(place / f"{digest}{CHECKPOINT_SUFFIX}") == digest:
                return state, ""
            return CheckpointState.DAMAGED, "its bytes are not those that it was written with"
        except Unreadable as error:
            if place == folder:
                reason = error.message
    return CheckpointState.UNREADABLE, reason


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_plain_file(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _unnamed_files(folder: Path, named: set[str]) -> tuple[str, ...]:
    """The files among the checkpoints that no version names or named."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return tuple(
        sorted(str(path) for path in found if path.name != MARK_FILE and path.name.removesuffix(CHECKPOINT_SUFFIX) not in named)
    )
