"""The search for newcomers that a retrain has to leave out. Deferred edits become live by a retrain alone, and one of them may
cost more retention or locality than acceptance allows. It must not keep the others waiting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.domain.edit import EditStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.lease import Lease
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import write_statuses
from service.store import edits, jobs
from service.store.edits import StatusChange
from service.store.jobs import Job

COSTS_TOO_MUCH = "a retrain with it was not accepted, and the same one without it was"


@dataclass
class NewcomerSearch:
    """The edits in `excluded_ids` wait for another retrain. `suspect_id` is the only newcomer of a snapshot that was refused."""

    excluded_ids: set[str] = field(default_factory=set)
    suspect_id: str | None = None

    def narrow(self, context: LifecycleContext, job: Job, newcomers: Sequence[str], reason: str) -> None:
        """Exclude the newer half of the newcomers, or the only one."""
        excluded = newcomers[len(newcomers) // 2 :]
        self.excluded_ids |= set(excluded)
        self.suspect_id = newcomers[0] if len(newcomers) == 1 else None
        message = f"refused: {reason}; once more without {len(excluded)} of {len(newcomers)} edits that were not live before"
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
