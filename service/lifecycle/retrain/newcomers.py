"""Which deferred edits a retrain goes without. They join the live set by a retrain alone, and one of them may cost more of what
should stay than acceptance allows: it must not keep all others waiting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.domain.edit import EditStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.lease import Lease
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import write_statuses
from service.store import edits, heads, jobs
from service.store.edits import StatusChange
from service.store.jobs import Job

TOO_COSTLY = "a retrain with it was not accepted, and the same one without it was"


@dataclass
class NewcomerSearch:
    """Those `put_off` wait for another retrain; the `suspect` was the only one in a snapshot that was refused."""

    put_off: set[str] = field(default_factory=set)
    suspect: str | None = None

    def narrow(self, context: LifecycleContext, job: Job, newcomers: Sequence[str], why: str) -> None:
        """Go without the newer half of the newcomers, or without the last one."""
        left_out = newcomers[len(newcomers) // 2 :]
        self.put_off |= set(left_out)
        self.suspect = newcomers[0] if len(newcomers) == 1 else None
        said = f"refused: {why}; once more without {len(left_out)} of {len(newcomers)} edits that were not live before"
        with context.store.write() as connection:
            jobs.append_to_log(connection, job.id, said, context.clock())

    def end(self, context: LifecycleContext, lease: Lease, job: Job) -> None:
        """After the retrain was published without the suspect: that edit fails, so that the next one is not refused for it."""
        if self.suspect is None:
            return
        with context.store.write() as connection:
            heads.lock(connection)
            heads.check_fence(connection, lease.fence)
            found = [edit for edit in edits.read_many(connection, [self.suspect]) if edit.status is EditStatus.DEFERRED]
            changes = [StatusChange(edit_id=edit.id, status=EditStatus.FAILED, error=TOO_COSTLY) for edit in found]
            write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
        context.announcer.announce([self.suspect])
