"""The search for newcomers that a retrain has to leave out. Deferred edits become live by a retrain alone, and one of them may
cost more retention or locality than acceptance allows. It must not keep the others waiting.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection

from service.domain.edit import EditStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.lease import Lease
from service.lifecycle.retrain.outcomes import ForcedRefused, NewcomersRefused
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import defer, write_statuses
from service.store import edits, jobs
from service.store.edits import StatusChange
from service.store.jobs import Job

COSTS_TOO_MUCH = "a retrain with it was not accepted, and the same one without it was"


@dataclass
class NewcomerSearch:
    """The deferred edits in `excluded_ids` wait for another retrain, and the live ones stay in the window. `suspect_id` is the
    only newcomer of a snapshot that was refused.
    """

    excluded_ids: set[str] = field(default_factory=set)
    suspect_id: str | None = None

    def narrow(self, context: LifecycleContext, lease: Lease, job: Job, refused: NewcomersRefused) -> None:
        """Exclude the newer half of the newcomers, or the only one."""
        newcomers, reason = refused.newcomers, "; ".join(refused.reasons)
        excluded = newcomers[len(newcomers) // 2 :]
        self.excluded_ids |= set(excluded)
        self.suspect_id = newcomers[0] if len(newcomers) == 1 else None
        message = f"refused: {reason}; once more without {len(excluded)} of {len(newcomers)} edits that were not live before"
        with fenced_write(context, lease.fence) as (connection, _):
            jobs.append_to_log(connection, job.id, message, context.clock())
            note_refusal(connection, context, job, newcomers, refused.reasons, refused.figures)

    def keep_out(self, context: LifecycleContext, job: Job, refused: ForcedRefused) -> None:
        """Exclude the live edits that were accepted anyway, before any newcomer is suspected."""
        self.excluded_ids |= set(refused.edit_ids)
        again = f"once more with {len(refused.edit_ids)} edits in the window that were accepted anyway"
        message = f"refused: {'; '.join(refused.reasons)}; {again}"
        with context.store.write() as connection:
            jobs.append_to_log(connection, job.id, message, context.clock())

    def fail_suspect(self, context: LifecycleContext, lease: Lease, job: Job) -> None:
        """After the retrain was published without the suspect: fail that edit, so that the next retrain is not refused for it."""
        if self.suspect_id is None:
            return
        with fenced_write(context, lease.fence) as (connection, _):
            suspects = [edit for edit in edits.read_many(connection, [self.suspect_id]) if edit.status is EditStatus.DEFERRED]
            changes = [StatusChange(edit_id=edit.id, status=EditStatus.FAILED, error=COSTS_TOO_MUCH) for edit in suspects]
            write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
        context.announcer.announce([self.suspect_id])


def note_refusal(
    connection: Connection,
    context: LifecycleContext,
    job: Job,
    edit_ids: Collection[str],
    reasons: Sequence[str],
    figures: Mapping[str, Any],
) -> None:
    """Write into the edits of a refused retrain that are deferred that it has tried them, and why it was refused."""
    deferred = sorted(set(edits.read_ids(connection, EditStatus.DEFERRED)) & set(edit_ids))
    reason = f"a retrain with it was not accepted: {'; '.join(reasons)}; it waits for the next one"
    changes = [defer(edit_id, reason, tried_on=job.parent, figures=figures) for edit_id in deferred]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
