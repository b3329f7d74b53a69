"""`/jobs`: list, follow and cancel jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from service.api.pagination import decode_id, encode_id, next_link
from service.api.principal import Author
from service.api.problems import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE, responses
from service.api.schemas import Page
from service.api.schemas.jobs import EXAMPLE_JOB, JobOut, JobQuery
from service.api.state import State
from service.api.text_types import ID
from service.background.jobs import cancel_job, estimate_seconds_left, list_jobs
from service.store import jobs
from service.store.jobs import Job

EXAMPLE_CANCELLING = EXAMPLE_JOB | {"cancel_asked_at": "2026-11-20T12:00:09Z", "cancelled_by": "local"}
CANCELLING: dict[int | str, dict[str, Any]] = {
    202: {
        "model": JobOut,
        "description": "The cancellation is accepted: the job stops at its next step and leaves everything unchanged.",
        "content": {"application/json": {"example": EXAMPLE_CANCELLING}},
    }
}
router = APIRouter(prefix="/jobs", tags=["jobs"])
JobId = Annotated[str, ID, Path(description="the job's id", examples=[EXAMPLE_JOB["id"]])]


def job_to_out(job: Job, now: datetime) -> JobOut:
    """A job as an answer. `now` is the time of the database's clock."""
    seconds_left = estimate_seconds_left(job, now)
    return JobOut.of(job, None if seconds_left is None else round(seconds_left, 1))


@router.get("", summary="List jobs, newest first", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_jobs(server: State, query: Annotated[JobQuery, Query()], response: Response) -> Page[JobOut]:
    """The jobs of some kinds or of all; `next` is the cursor of the older ones."""
    before = decode_id(query.cursor)
    rows = list_jobs(server.store, limit=query.limit + 1, before=before, kind=query.kind, status=query.status)
    page = rows[: query.limit]
    next_cursor = encode_id(page[-1].id) if len(rows) > query.limit else None
    now = server.store.clock()
    if next_cursor is not None:
        filters: dict[str, Sequence[str]] = {"kind": query.kind, "status": query.status}
        response.headers["Link"] = next_link("/jobs", limit=query.limit, cursor=next_cursor, filters=filters)
    return Page[JobOut](items=[job_to_out(job, now) for job in page], next=next_cursor)


@router.get("/{job_id}", summary="Follow a job", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_job(server: State, job_id: JobId) -> JobOut:
    """The progress of a job, the estimated seconds that are left, and its result."""
    with server.store.read() as connection:
        job = jobs.get(connection, job_id, brief=True)
    return job_to_out(job, server.store.clock())


@router.delete(
    "/{job_id}",
    summary="Cancel a job",
    responses=CANCELLING | responses(NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE),
)
def delete_job(server: State, job_id: JobId, author: Author, response: Response) -> JobOut:
    """Cancel a retrain or an export: 200 if it had not begun, 202 if it runs. Safe to repeat.

    409 if the job has ended, or if edits depend on its kind (apply, refit).
    """
    job = cancel_job(server.store, job_id, author=author)
    server.ring(job.id)
    response.status_code = 202 if job.is_active else 200
    response.headers["Location"] = f"/jobs/{job.id}"
    return job_to_out(job, server.store.clock())
