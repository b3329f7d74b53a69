"""A place for checkpoints in the memory of this process: the second form, which shows what the service asks of any form."""

import itertools
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256

from service.domain.errors import Corrupt, Unreadable
from service.lm.checkpoint_store import CheckpointState, StoreMark

NO_MARK = "nothing in memory is marked"


@dataclass(frozen=True)
class KeptBytes:
    """Bytes, when they were written or discarded, and the number of their write."""

    data: bytes
    time: float
    write: int


class MemoryCheckpoints:
    """Dictionaries as a `CheckpointStore`. Nothing is ever half written here, unless a test leaves it so."""

    def __init__(self) -> None:
        self.places: dict[str, KeptBytes] = {}
        self.trash: dict[str, KeptBytes] = {}
        self.unfinished: list[float] = []
        self.mark: StoreMark | None = None
        self._writes = itertools.count()

    def find_fault(self) -> str | None:
        return None if self.mark is not None else NO_MARK

    def read_mark(self) -> StoreMark | None:
        return self.mark

    def write_mark(self, mark: StoreMark) -> None:
        self.mark = mark

    def read(self, digest: str) -> bytes:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Corrupt("no digest")
        if digest not in self.places:
            raise Unreadable("not in memory")
        return self.places[digest].data

    def write(self, digest: str, data: bytes) -> None:
        self.places[digest] = KeptBytes(data, time.time(), next(self._writes))

    def identify(self, digest: str) -> int | None:
        return self.places[digest].write if digest in self.places else None

    def has(self, digest: str) -> bool:
        return digest in self.places

    def verify(self, digest: str) -> tuple[CheckpointState, str]:
        for kept, state in ((self.places, CheckpointState.GOOD), (self.trash, CheckpointState.IN_TRASH)):
            if digest in kept:
                right = sha256(kept[digest].data).hexdigest() == digest
                return (state, "") if right else (CheckpointState.DAMAGED, "other bytes")
        return CheckpointState.UNREADABLE, "not in memory"

    def is_older(self, digest: str, age_s: float) -> bool:
        return digest in self.places and time.time() - self.places[digest].time > age_s

    def discard(self, digest: str) -> bool:
        if digest not in self.places:
            return False
        self.trash[digest] = replace(self.places.pop(digest), time=time.time())
        return True

    def restore(self, digest: str) -> bool:
        if digest in self.places or digest not in self.trash:
            return False
        self.places[digest] = self.trash.pop(digest)
        return True

    def remove(self, digest: str) -> str | None:
        found = [kept.pop(digest, None) for kept in (self.places, self.trash)]
        return digest if any(found) else None

    def empty_trash(self, digests: Collection[str], *, term_s: float) -> list[str]:
        deleted = [digest for digest, kept in self.trash.items() if digest in digests and time.time() - kept.time > term_s]
        for digest in deleted:
            del self.trash[digest]
        return sorted(deleted)

    def delete_unfinished(self, age_s: float) -> int:
        young = [begun for begun in self.unfinished if time.time() - begun <= age_s]
        deleted, self.unfinished = len(self.unfinished) - len(young), young
        return deleted

    def list_unnamed(self, digests: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted((self.places.keys() | self.trash.keys()) - set(digests)))

    def count(self) -> int:
        return len(self.places)

    def let_age(self) -> None:
        """Make all that is kept here very old."""
        for kept in (self.places, self.trash):
            kept.update({digest: replace(of, time=0.0) for digest, of in kept.items()})
        self.unfinished = [0.0] * len(self.unfinished)

    def leave_unfinished(self) -> None:
        """Begin a write and never end it."""
        self.unfinished.append(time.time())
