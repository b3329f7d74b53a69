"""What the service needs of a place where checkpoints are kept. `checkpoint_folder.py` is its first form."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class CheckpointState(StrEnum):
    """The result of reading a checkpoint."""

    GOOD = "good"
    IN_TRASH = "in the trash"  # and fetched back by whoever needs it
    DAMAGED = "damaged"
    UNREADABLE = "unreadable here"


@dataclass(frozen=True)
class StoreMark:
    """The store that a place of checkpoints belongs to. A mark that is not complete was written by a process that may have ended
    before it made the store.
    """

    store_id: str
    is_complete: bool


class CheckpointStore(Protocol):
    """A place for checkpoints, each under the SHA-256 of its bytes.

    A checkpoint is in its place or in the trash. The trash is for checkpoints that no version needs, so that a mistake can be
    undone. The mark says to which store the place belongs. Several processes use one place at the same time.

    A method that moves, deletes, lists or counts may raise OSError if the place refuses.
    """

    def find_fault(self) -> str | None:
        """Why the place cannot be used now, as a part of a sentence, or None. A place without a mark is not the expected one."""

    def read_mark(self) -> StoreMark | None:
        """The mark, or None if there is none. Raises Unreadable if it cannot be read now or is damaged."""

    def write_mark(self, mark: StoreMark) -> None:
        """Write the mark durably; make the place if it is not there. Raises Unavailable if it cannot be written."""

    def read(self, digest: str) -> bytes:
        """The bytes in the place of a checkpoint, whatever they are.

        Raises Unreadable if this process cannot read them now, Corrupt if the name is not a digest.
        """

    def write(self, digest: str, data: bytes) -> None:
        """Write a checkpoint durably; make the place if it is not there. After a crash the checkpoint is whole or absent.

        Raises Unavailable if it cannot be written. Then nothing is left under its name.
        """

    def identify(self, digest: str) -> Hashable | None:
        """What changes whenever the bytes of a checkpoint may have changed, without reading them. None if it cannot be seen."""

    def has(self, digest: str) -> bool:
        """Whether a checkpoint is in its place."""

    def verify(self, digest: str) -> tuple[CheckpointState, str]:
        """Read all bytes of a checkpoint, a part at a time. Its state, and the reason if it is damaged or unreadable."""

    def is_older(self, digest: str, age_s: float) -> bool:
        """Whether a checkpoint was written longer ago than this. A checkpoint that cannot be seen was not."""

    def discard(self, digest: str) -> bool:
        """Move a checkpoint to the trash; its term begins now. Return whether there was one."""

    def restore(self, digest: str) -> bool:
        """Move a checkpoint back from the trash, if it is there and its place is free; return whether it was moved. Raises
        nothing: the reason of a refusal is found by reading the checkpoint.
        """

    def remove(self, digest: str) -> str | None:
        """Delete a checkpoint for good, wherever it is. Return its name in this place, or None if there was none."""

    def empty_trash(self, digests: Collection[str], *, term_s: float) -> list[str]:
        """Delete those of the checkpoints that have been in the trash for the term; return their digests."""

    def delete_unfinished(self, age_s: float) -> int:
        """Delete what was being written when its process ended, longer ago than this; return how many there were."""

    def list_unnamed(self, digests: Collection[str]) -> tuple[str, ...]:
        """The sorted names of all that is kept here, also in the trash, and is neither one of the checkpoints nor the mark."""

    def count(self) -> int:
        """The number of checkpoints in their places."""
