"""`/admin`: what moves the head by hand; and `/jobs`, where its longer work is followed."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Response
from starlette.concurrency import run_in_threadpool

from service.api.parts import Running
from service.api.principal import Author
from service.api.problems import CONFLICT, CORRUPT, GONE, INVALID, NOT_FOUND, STALE, UNAVAILABLE, responses
from service.api.schemas.versions import EXAMPLE_JOB, JobOut, RetrainIn, RollbackIn, RollbackOut
from service.api.strict_json import StrictRoute
from service.domain.errors import Refused
from service.lifecycle.retrain import request_retrain
from service.lifecycle.rollback import RolledBack, roll_back
from service.store import jobs

router = APIRouter(route_class=StrictRoute)


def expected_epoch(
    given: Annotated[str | None, Header(alias="If-Match", description='the epoch that the caller saw, such as `"7"`')] = None,
) -> int | None:
    """The epoch that a rollback is decided on; None if it does not matter."""
    if given is None:
        return None
    digits = given.strip().strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Refused('If-Match must hold the epoch in quotes, such as "7"', field="If-Match")
    return int(digits)


Epoch = Annotated[int | None, Depends(expected_epoch)]
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted; follow it at `Location`.",
        "headers": {"Location": {"description": "where the job is read", "schema": {"type": "string"}}},
        "content": {"application/json": {"example": EXAMPLE_JOB | {"status": "queued", "progress": 0.0}}},
    }
}


@router.post(
    "/admin/rollback",
    tags=["admin"],
    summary="Answer as an older version did",
    responses=responses(NOT_FOUND, CONFLICT, GONE, STALE, INVALID, CORRUPT, UNAVAILABLE),
)
async def rollback(running: Running, wanted: RollbackIn, epoch: Epoch, author: Author) -> RollbackOut:
    """Publish an older version's overlay and edits under a new number, less the edits retracted since.

    It is in effect when this answers. Edits that are queued stay queued. With `If-Match`, only if the head has not moved.
    """

    def roll() -> RolledBack:
        return roll_back(
            running.lifecycle, to=wanted.to, author=author, reason=wanted.reason, requeue=wanted.requeue, if_match=epoch
        )

    done = await run_in_threadpool(roll)
    await run_in_threadpool(running.ring, "")
    return RollbackOut(version=done.version, restored=done.restored, epoch=done.epoch, rolled_back=list(done.rolled_back))


@router.post(
    "/admin/retrain",
    tags=["admin"],
    status_code=202,
    summary="Move every live edit into the weights",
    responses=ACCEPTED | responses(CONFLICT, INVALID, UNAVAILABLE),
)
async def retrain(running: Running, wanted: RetrainIn, author: Author, response: Response) -> JobOut:
    """Ask for a retrain from the base model over every live edit. A waiting one is not doubled; 409 if none is needed."""
    job = await run_in_threadpool(request_retrain, running.store, reason=wanted.reason, author=author)
    await run_in_threadpool(running.ring, job.id)
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    return _out(job)


@router.get("/jobs/{job_id}", tags=["admin"], summary="Follow a job", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_job(
    running: Running,
    job_id: Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,64}$", description="the job's id", examples=[EXAMPLE_JOB["id"]])],
) -> JobOut:
    """How far a job is, and what it published."""
    with running.store.read() as connection:
        return _out(jobs.get(connection, job_id))


def _out(job: jobs.Job) -> JobOut:
    what = ("id", "kind", "status", "progress", "stage", "reason", "author", "version", "error")
    when = ("created_at", "started_at", "finished_at")
    return JobOut(**{name: getattr(job, name) for name in what + when}, attempts=job.claims)
