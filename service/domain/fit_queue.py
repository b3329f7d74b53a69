"""Which queued edits are fitted next. Small edits are fitted together; a large edit is fitted alone and after them. Pure.

A large edit does not wait for ever: it gets its turn after a number of jobs of small edits. Edits of one conflict key are fitted
in order of submission, whatever they cost. Edits that are to be accepted anyway are fitted apart from judged ones, so that what
they cost is not set against the judged ones' allowance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.edit import JUDGED, Accept

JOBS_BEFORE_TURN = 4  # jobs of small edits in a row after which a waiting large edit gets its turn


@dataclass(frozen=True)
class QueuedEdit:
    """A queued edit. `tokens`: tokens of a fit of this edit alone; 0: not counted."""

    edit_id: str
    key: str
    seq: int
    tokens: int
    accept: Accept = JUDGED


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

    A small edit takes along the older large edits of its conflict key: the newest edit is fitted, the others are superseded. All
    edits of a job are to be accepted in the same way. A large edit of the other way is superseded later, in a job of its own.
    """
    first = _first_large(queue)
    if first is not None and (not queue.small or is_turn_of(first, queue.ended)):
        return (first.edit_id,)
    batch: list[QueuedEdit] = []
    for edit in queue.small:
        budget -= edit.tokens
        older = [large for large in queue.large if _is_outdated_by(large, edit) and large not in batch]
        if batch and (budget < 0 or len(batch) + len(older) + 1 > most or edit.accept != batch[0].accept):
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


def _is_outdated_by(large: QueuedEdit, edit: QueuedEdit) -> bool:
    """Whether a large edit is superseded by a newer one in the same job."""
    return large.key == edit.key and large.seq < edit.seq and large.accept == edit.accept


def _first_large(queue: FitQueue) -> QueuedEdit | None:
    """The oldest large edit that waits for no older small edit of its conflict key."""
    first_small = {edit.key: edit.seq for edit in reversed(queue.small)}
    return next((edit for edit in queue.large if first_small.get(edit.key, edit.seq) >= edit.seq), None)
