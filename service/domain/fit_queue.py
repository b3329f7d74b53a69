"""Which queued edits are fitted next. Small edits are fitted together; a large edit is fitted alone and after them. Pure.

A large edit does not wait for ever: it gets its turn after a number of jobs of small edits. Edits of one conflict key are fitted
in order of submission, whatever they cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

JOBS_BEFORE_TURN = 4  # jobs of small edits in a row after which a waiting large edit gets its turn


@dataclass(frozen=True)
class QueuedEdit:
    """A queued edit. `tokens`: tokens of a fit of this edit alone; 0: not counted."""

    edit_id: str
    key: str
    seq: int
    tokens: int


@dataclass(frozen=True)
class FitQueue:
    """The first `small` and the first `large` queued edits, in order of submission.

    `ended`: for the last jobs that ended, newest first, the sequence number of their newest edit.
    """

    small: Sequence[QueuedEdit]
    large: Sequence[QueuedEdit]
    ended: Sequence[int]


def choose_next_job(queue: FitQueue, *, most: int, budget: int) -> tuple[str, ...]:
    """The ids of the edits of the next job: one large edit, or at most `most` small ones of at most `budget` tokens in all.

    A small edit takes along the older large edits of its conflict key: the newest edit is fitted, the others are superseded.
    """
    first = _first_large(queue)
    if first is not None and (not queue.small or is_turn_of(first, queue.ended)):
        return (first.edit_id,)
    batch: list[QueuedEdit] = []
    for edit in queue.small:
        budget -= edit.tokens
        older = [large for large in queue.large if large.key == edit.key and large.seq < edit.seq and large not in batch]
        if batch and (budget < 0 or len(batch) + len(older) + 1 > most):
            break
        batch += [*older, edit]
    return tuple(edit.edit_id for edit in sorted(batch, key=lambda edit: edit.seq))


def must_give_way(running: QueuedEdit, queue: FitQueue) -> bool:
    """Whether the running fit of a large edit ends because small edits wait. It does not during the turn of the large edit."""
    return bool(queue.small) and not is_turn_of(running, queue.ended)


def is_turn_of(edit: QueuedEdit, ended: Sequence[int]) -> bool:
    """Whether a large edit has its turn: the last JOBS_BEFORE_TURN jobs each had an edit that was accepted after this one.

    Large edits get their turns in order of submission, so none of these jobs was the turn of another large edit. A small edit may
    have taken a large one along.
    """
    last = ended[:JOBS_BEFORE_TURN]
    return len(last) == JOBS_BEFORE_TURN and all(seq > edit.seq for seq in last)


def _first_large(queue: FitQueue) -> QueuedEdit | None:
    """The oldest large edit that waits for no older small edit of its conflict key."""
    first_small = {edit.key: edit.seq for edit in reversed(queue.small)}
    return next((edit for edit in queue.large if first_small.get(edit.key, edit.seq) >= edit.seq), None)
