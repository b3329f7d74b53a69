"""Reading every checkpoint that a version needs, and reporting its state. Neither the head nor a model is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from service.lm.checkpoint_store import CheckpointState, CheckpointStore
from service.store import events, heads, versions
from service.store.database import Store
from service.store.events import Event


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
    """All checkpoints that versions need, and the names of what is kept beside them and no version needs or needed."""

    checkpoints: tuple[VerifiedCheckpoint, ...]
    unnamed: tuple[str, ...]


def verify(
    store: Store, checkpoints: CheckpointStore, *, progress: Callable[[int, int], None] = lambda done, of: None
) -> Verification:
    """Read every checkpoint that a version of the store needs. `progress(done, total)` is called before each of them and at the
    end.
    """
    with store.read() as connection:
        needed = versions.read_by_digest(connection)
        named = needed.keys() | versions.read_collected_digests(connection)
    found = []
    for done, (digest, numbers) in enumerate(sorted(needed.items(), key=lambda checkpoint: checkpoint[1])):
        progress(done, len(needed))
        state, detail = checkpoints.verify(digest)
        marked = tuple(number for number, is_corrupt in numbers if is_corrupt)
        found.append(VerifiedCheckpoint(digest, tuple(number for number, _ in numbers), marked, state, detail))
    progress(len(needed), len(needed))
    return Verification(tuple(found), checkpoints.list_unnamed(named))


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
