"""The next edits to fit, and whether a running fit of a large edit gives way to small ones. The rule is `domain/fit_queue.py`;
this module reads its input.
"""

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from service.domain.fit_queue import JOBS_BEFORE_TURN, FitQueue, QueuedEdit, choose_next_job, must_give_way
from service.lifecycle.context import LifecycleContext
from service.store import edits, jobs

FITTED_STATUSES = ("done", "failed")  # a cancelled job fitted nothing


def read_next_edits(connection: Connection, context: LifecycleContext) -> tuple[str, ...]:
    """The ids of the edits of the next job; empty if no edit waits."""
    settings = context.settings
    return choose_next_job(_queue(connection, context), most=settings.joint, budget=settings.joint_tokens)


def gives_way(connection: Connection, context: LifecycleContext, edit_ids: Sequence[str]) -> bool:
    """Whether the job of these edits ends for the sake of waiting edits. Only the job of one large edit ever does."""
    if len(edit_ids) != 1:
        return False
    rows = edits.read_many(connection, edit_ids)
    if not rows or rows[0].tokens <= context.settings.large:
        return False
    running = QueuedEdit(rows[0].id, edits.key_digest(rows[0]), rows[0].seq, rows[0].tokens, rows[0].accept)
    return must_give_way(running, _queue(connection, context, running))


def _queue(connection: Connection, context: LifecycleContext, running: QueuedEdit | None = None) -> FitQueue:
    small, large = edits.read_queue(connection, most=context.settings.joint, large=context.settings.large)
    if not small or not (large or running):
        return FitQueue(small, large, ())  # with one kind of edits the turns do not matter
    recent_jobs = jobs.read_page(connection, limit=JOBS_BEFORE_TURN, kind="apply", status=FITTED_STATUSES)
    newest = (edits.read_newest_seq(connection, job.edit_ids) for job in recent_jobs)
    return FitQueue(small, large, [seq for seq in newest if seq is not None])
