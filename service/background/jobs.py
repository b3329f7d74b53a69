"""The list of the worker's jobs, and their cancellation."""

from collections.abc import Collection
from datetime import datetime

import structlog

from service.domain.errors import Conflict
from service.store import events, heads, jobs
from service.store.clock import read_now
from service.store.database import Store
from service.store.events import Event
from service.store.jobs import Job

log = structlog.get_logger("errata.jobs")
CANCELLABLE = ("retrain", "export")  # edits depend on jobs of other kinds; an unwanted edit is retracted instead


def list_jobs(
    store: Store, *, limit: int, before: str | None = None, kind: str | Collection[str] = (), status: str | Collection[str] = ()
) -> list[Job]:
    """Jobs, newest first, without the ids of their edits; only those older than the job `before`. Raises NotFound if that does
    not exist.
    """
    with store.read() as connection:
        return jobs.read_page(connection, limit=limit, before=before, kind=kind, status=status, brief=True)


def cancel_job(store: Store, job_id: str, *, author: str, now: datetime | None = None) -> Job:
    """Cancel a queued job; a running job is told to stop at its next step. Safe to repeat.

    Raises NotFound; Conflict if the job is over or of a kind that cannot be cancelled.
    """
    with store.write() as connection:
        heads.lock(connection)
        now = now or read_now(connection)
        job = jobs.get(connection, job_id, brief=True)
        if job.kind not in CANCELLABLE:
            raise Conflict(f"a job of the kind {job.kind} cannot be cancelled; retract its edits instead", field="id")
        if job.cancel_asked_at is not None and job.status in ("running", "cancelled"):
            return job
        if not job.is_active:
            raise Conflict(f"the job is over: it is {job.status}", field="id")
        jobs.write(connection, job.id, cancel_asked_at=now, cancelled_by=author)
        if job.status == "running":
            jobs.append_to_log(connection, job.id, f"{author} asked for it to be cancelled", now)
            events.write(connection, [Event(type=f"{job.kind}.cancel_asked", job_id=job.id, author=author)], now=now)
            return jobs.get(connection, job.id, brief=True)
        jobs.finish_cancelled(connection, job.id, now=now)
        events.write(connection, [Event(type=f"{job.kind}.cancelled", job_id=job.id, author=author)], now=now)
        ended = jobs.get(connection, job.id, brief=True)
    log.info(f"{job.kind} ended", job=job.id, status=ended.status, mode=ended.mode, version=None, reason=ended.error, seconds=0.0)
    return ended


def estimate_seconds_left(job: Job, now: datetime) -> float | None:
    """The seconds that a running job still takes at its speed so far; None if that is unknown."""
    if job.status != "running" or job.started_at is None or not 0 < job.progress <= 1:
        return None
    elapsed = max(0.0, (now - job.started_at).total_seconds())
    return elapsed * (1 - job.progress) / job.progress
