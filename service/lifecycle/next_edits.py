"""Whose turn it is: which of the edits that wait are fitted next, and whether a large one that is being fitted gives way to small
ones. The rule itself is `domain/queue.py`; this reads what it looks at.
"""

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from service.domain.fit_queue import JOBS_BEFORE_TURN, FitQueue, QueuedEdit, choose_next_job, must_give_way
from service.lifecycle.context import LifecycleContext
from service.store import edits, jobs

ENDED = ("done", "failed")  # a job that was cancelled fitted nothing


def read_next_edits(connection: Connection, context: LifecycleContext) -> tuple[str, ...]:
    """The ids of the edits that make the next job; none if nothing waits."""
    settings = context.settings
    return choose_next_job(_queue(connection, context), most=settings.joint, budget=settings.joint_tokens)


def gives_way(connection: Connection, context: LifecycleContext, edit_ids: Sequence[str]) -> bool:
    """Whether the job of these edits ends for the sake of others that wait. Only one of a large edit ever does."""
    if len(edit_ids) != 1:
        return False
    found = edits.read_many(connection, edit_ids)
    if not found or found[0].tokens <= context.settings.large:
        return False
    running = QueuedEdit(found[0].id, edits.key_digest(found[0]), found[0].seq, found[0].tokens)
    return must_give_way(running, _queue(connection, context, running))


def _queue(connection: Connection, context: LifecycleContext, running: QueuedEdit | None = None) -> FitQueue:
    small, large = edits.read_queue(connection, most=context.settings.joint, large=context.settings.large)
    if not small or not (large or running):
        return FitQueue(small, large, ())  # nobody asks whose turn it is
    last = jobs.read_page(connection, limit=JOBS_BEFORE_TURN, kind="apply", status=ENDED)
    newest = (edits.read_newest_seq(connection, job.edit_ids) for job in last)
    return FitQueue(small, large, [seq for seq in newest if seq is not None])
