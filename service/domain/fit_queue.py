"""Which of the edits that wait are fitted next: small ones together, a large one alone and after them, but not for ever. Pure.

Edits of one conflict key are fitted in order of acceptance, whatever they cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

JOBS_BEFORE_TURN = 4  # jobs of small edits in a row after which a large one that waited for them has its turn


@dataclass(frozen=True)
class QueuedEdit:
    """An edit that is queued; `tokens` is what a fit of it alone is given, 0 where nobody counted."""

    edit_id: str
    key: str
    seq: int
    tokens: int


@dataclass(frozen=True)
class FitQueue:
    """What waits, in order of acceptance: the first `small` and the first `large` edits; and of the last jobs that ended, newest
    first, the number of the newest of their edits.
    """

    small: Sequence[QueuedEdit]
    large: Sequence[QueuedEdit]
    ended: Sequence[int]


def choose_next_job(queue: FitQueue, *, most: int, budget: int) -> tuple[str, ...]:
    """The ids of the edits that make the next job: a large one alone, or at most `most` small ones of `budget` tokens in all.

    Large edits that small ones of it overtake within one fact come along: the newest is fitted, the others are superseded.
    """
    first = _first_large(queue)
    if first is not None and (not queue.small or is_its_turn(first, queue.ended)):
        return (first.edit_id,)
    taken: list[QueuedEdit] = []
    for one in queue.small:
        budget -= one.tokens
        more = [*(other for other in queue.large if other.key == one.key and other.seq < one.seq and other not in taken), one]
        if taken and (budget < 0 or len(taken) + len(more) > most):
            break
        taken += more
    return tuple(one.edit_id for one in sorted(taken, key=lambda one: one.seq))


def must_give_way(running: QueuedEdit, queue: FitQueue) -> bool:
    """Whether the fit of a large edit ends for the sake of small ones that wait: unless it is its turn."""
    return bool(queue.small) and not is_its_turn(running, queue.ended)


def is_its_turn(one: QueuedEdit, ended: Sequence[int]) -> bool:
    """Whether so many jobs whose newest edit came after a large one were done before it that now it is its turn. Large ones have
    theirs in order of acceptance, so none of these was one's: a small edit may have taken one of its fact along.
    """
    last = ended[:JOBS_BEFORE_TURN]
    return len(last) == JOBS_BEFORE_TURN and all(seq > one.seq for seq in last)


def _first_large(queue: FitQueue) -> QueuedEdit | None:
    """The oldest large edit before which no small one of its fact is to be fitted."""
    before = {one.key: one.seq for one in reversed(queue.small)}
    return next((one for one in queue.large if before.get(one.key, one.seq) >= one.seq), None)
