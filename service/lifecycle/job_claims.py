"""Claiming a job: the one place that counts how often a job was claimed, and says which neutral sentences its fits use."""

from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from service.lifecycle.context import EditingContext
from service.store import jobs
from service.store.jobs import Job

WORN_OUT = "its fit ended the process again and again"


def is_worn_out(job: Job, limit: int) -> bool:
    """Whether a job was claimed so often that it probably ends the process: claimed for ever, it would do so for ever."""
    return job.claims >= limit


def sentences_of(context: EditingContext, job: Job) -> int | None:
    """The number of neutral sentences that the fits of a job use: those that there are at its first claim, and later the same,
    so that a repetition gives the same bytes. None: all.
    """
    return context.editors.neutral_sentences if job.status == "queued" else job.neutral_sentences


def claim_job(connection: Connection, job: Job, *, fence: int | None, now: datetime, **values: Any) -> Job:
    """Make a job the caller's, with further columns. A claim counts if the job was queued or another worker had it.

    `fence` is that of the worker's lease; without a fence every claim counts.
    """
    is_new = job.status == "queued" or fence is None or job.fence != fence
    return jobs.update(
        connection,
        job.id,
        status="running",
        fence=fence,
        claims=job.claims + int(is_new),
        started_at=job.started_at or now,
        **values,
    )
