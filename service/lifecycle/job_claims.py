"""Claiming a job for the worker: the one place that counts how often a job was claimed, and gives a job up."""

from typing import Any

from sqlalchemy.engine import Connection

from service.lifecycle.context import LifecycleContext
from service.lifecycle.lease import Lease
from service.store import jobs
from service.store.jobs import Job

WORN_OUT = "its fit ended the process again and again"


def is_worn_out(context: LifecycleContext, job: Job) -> bool:
    """Whether a job was claimed so often that it probably ends the process: claimed for ever, it would do so for ever."""
    return job.claims >= context.settings.claims


def claim_job(connection: Connection, context: LifecycleContext, lease: Lease, job: Job, **values: Any) -> Job:
    """Make a job this worker's, with further columns. A claim counts if the job was queued or another worker had it."""
    is_new = job.status == "queued" or job.fence != lease.fence
    started_at = job.started_at or context.clock()
    return jobs.update(
        connection,
        job.id,
        status="running",
        fence=lease.fence,
        claims=job.claims + int(is_new),
        started_at=started_at,
        **values,
    )
