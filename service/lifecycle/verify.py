"""Reading every checkpoint that a version needs, and saying what became of it. Opens no head and needs no model."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy.engine import Connection

from service.domain.errors import Unreadable
from service.lifecycle.store_identity import MARK
from service.lm.checkpoint_files import CHECKPOINT_SUFFIX, TRASH_FOLDER, open_plain_file
from service.store import events, heads, versions
from service.store.database import Store
from service.store.events import Event

CHUNK_BYTES = 1 << 22


class CheckpointState(StrEnum):
    """What reading a checkpoint came to."""

    GOOD = "good"
    IN_TRASH = "in the trash"  # and fetched back by whoever needs it
    DAMAGED = "damaged"
    UNREADABLE = "unreadable here"


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint, the versions that need it (`marked` ones are called corrupt by the database), and how it was found."""

    digest: str
    versions: tuple[int, ...]
    marked: tuple[int, ...]
    state: CheckpointState
    detail: str = ""

    @property
    def is_right(self) -> bool:
        """Whether its bytes are there, and are those that it was written with."""
        return self.state in (CheckpointState.GOOD, CheckpointState.IN_TRASH)

    @property
    def is_good(self) -> bool:
        """Whether its versions can answer, and the database says so."""
        return self.is_right and not self.marked


@dataclass(frozen=True)
class Verification:
    """All checkpoints that are needed, and the names of files that no version needs or needed."""

    checkpoints: tuple[VerifiedCheckpoint, ...]
    unnamed: tuple[str, ...]


def verify(store: Store, folder: Path, *, progress: Callable[[int, int], None] = lambda done, of: None) -> Verification:
    """Read every checkpoint that a version of the store needs. `progress` is told how many of how many were read."""
    with store.read() as connection:
        needed = versions.read_by_digest(connection)
        named = needed.keys() | versions.read_collected_digests(connection)
    found = []
    for done, (digest, numbers) in enumerate(sorted(needed.items(), key=lambda one: one[1])):
        progress(done, len(needed))
        state, detail = _state(folder, digest)
        marked = tuple(number for number, is_corrupt in numbers if is_corrupt)
        found.append(VerifiedCheckpoint(digest, tuple(number for number, _ in numbers), marked, state, detail))
    progress(len(needed), len(needed))
    return Verification(tuple(found), _unnamed(folder, named))


def heal(store: Store, verified: Verification, *, author: str, now: datetime) -> list[int]:
    """Take it back, in the database, that versions are corrupt whose bytes were read and are right; their numbers."""
    right = [one.digest for one in verified.checkpoints if one.marked and one.is_right]
    with store.write() as connection:
        heads.lock(connection)
        return [number for digest in right for number in unmark(connection, digest, author=author, now=now)]


def unmark(connection: Connection, digest: str, *, author: str, now: datetime) -> list[int]:
    """Unmark the versions with these bytes, which were read and are right; their numbers."""
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
                why = error.message
    return CheckpointState.UNREADABLE, why


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_plain_file(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _unnamed(folder: Path, named: set[str]) -> tuple[str, ...]:
    """What lies among the checkpoints and is none that a version names or named."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return tuple(
        sorted(str(path) for path in found if path.name != MARK and path.name.removesuffix(CHECKPOINT_SUFFIX) not in named)
    )
