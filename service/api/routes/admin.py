"""`/admin`: what moves the head by hand, writes versions out, and takes back what should never have been there."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from starlette.concurrency import run_in_threadpool

from service.api.idempotency import Key, keyed_request, set_replay_header, with_replay_header
from service.api.principal import Author
from service.api.problems import CONFLICT, CORRUPT, GONE, INVALID, NOT_FOUND, STALE, UNAVAILABLE, responses
from service.api.routes.jobs import job_to_out
from service.api.schemas.jobs import (
    EXAMPLE_EXPORT,
    EXAMPLE_JOB,
    ExportIn,
    JobOut,
    PurgedOut,
    PurgeIn,
    RetrainIn,
    RevokedOut,
    RevokeIn,
)
from service.api.schemas.versions import RollbackIn, RollbackOut
from service.api.state import ServerState, State
from service.api.strict_json import StrictRoute
from service.background.exports import request_export
from service.background.purge import PurgeReport, purge
from service.domain.errors import Refused
from service.lifecycle.retrain.request import request_retrain
from service.lifecycle.revoke import RevocationResult, revoke
from service.lifecycle.rollback import RollbackResult, roll_back
from service.store.idempotency import KeyedRequest
from service.store.jobs import Job

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
EXAMPLE_QUEUED = EXAMPLE_JOB | {
    "status": "queued",
    "progress": 0.0,
    "attempts": 0,
    "log": [],
    "started_at": None,
    "seconds_left": None,
}


def accepted(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of a job that was queued."""
    headers = {"Location": {"description": "where the job is read", "schema": {"type": "string"}}}
    content = {"application/json": {"example": example}}
    return {202: {"description": "Accepted; follow it at `Location`.", "headers": headers, "content": content}}


@router.post(
    "/admin/rollback",
    tags=["admin"],
    summary="Answer as an older version did",
    responses=with_replay_header({}) | responses(NOT_FOUND, CONFLICT, GONE, STALE, INVALID, CORRUPT, UNAVAILABLE),
)
async def rollback(server: State, body: RollbackIn, epoch: Epoch, author: Author, key: Key, response: Response) -> RollbackOut:
    """Publish an older version's overlay and edits under a new number, less the edits retracted since.

    It is in effect when this answers. Edits that are queued stay queued. With `If-Match`, only if the head has not moved. Sent
    again under the same `Idempotency-Key` it is answered as the first time, whatever has moved the head since.
    """
    keyed = keyed_request("rollback", author, key, body, if_match=epoch)

    def roll() -> RollbackResult:
        return roll_back(
            server.lifecycle,
            to=body.to,
            author=author,
            reason=body.reason,
            requeue=body.requeue,
            if_match=epoch,
            keyed=keyed,
        )

    done = await run_in_threadpool(roll)
    set_replay_header(response, keyed)
    await run_in_threadpool(server.ring, "")
    return RollbackOut(version=done.version, restored=done.restored, epoch=done.epoch, rolled_back=list(done.rolled_back))


@router.post(
    "/admin/retrain",
    tags=["admin"],
    status_code=202,
    summary="Move every live edit into the weights",
    responses=with_replay_header(accepted(EXAMPLE_QUEUED), 202) | responses(CONFLICT, INVALID, UNAVAILABLE),
)
async def post_retrain(server: State, body: RetrainIn, author: Author, key: Key, response: Response) -> JobOut:
    """Ask for a retrain, from the base model or on top of the current tensors.

    One that waits, or runs on all there is, is not doubled: it is the answer. 409 if there is nothing that the tensors do not
    have, unless a major one is asked for.
    """
    keyed = keyed_request("retrain", author, key, body)

    def ask() -> Job:
        return request_retrain(server.store, reason=body.reason, author=author, mode=body.mode, keyed=keyed)

    return await _queued(server, await run_in_threadpool(ask), keyed, response)


@router.post(
    "/admin/export",
    tags=["admin"],
    status_code=202,
    summary="Write a version as a Hugging Face checkpoint",
    responses=with_replay_header(accepted(EXAMPLE_EXPORT), 202)
    | responses(NOT_FOUND, CONFLICT, GONE, INVALID, CORRUPT, UNAVAILABLE),
)
async def post_export(server: State, body: ExportIn, author: Author, key: Key, response: Response) -> JobOut:
    """Queue an export to a new folder in the server's folder of exports; `result` of the job says where. 409 if the name is
    taken.

    `from_pretrained` loads it, unless the version has a window: then the interventions of its last edits lie beside the weights,
    `load_errata.py` loads both, `from_pretrained` refuses, and `warning` in the job's `result` says how many edits the weights
    lack. With `consolidate` a retrain comes first, and what that publishes is exported.
    """
    number = {"head": None, "base": 0}[body.version] if isinstance(body.version, str) else body.version
    keyed = keyed_request("export", author, key, body)

    def ask() -> Job:
        return request_export(
            server.store,
            server.exports,
            version=number,
            name=body.name,
            consolidate=body.mode if body.consolidate else None,
            max_shard_size=body.max_shard_size,
            author=author,
            keyed=keyed,
        )

    return await _queued(server, await run_in_threadpool(ask), keyed, response)


@router.post(
    "/admin/revoke",
    tags=["admin"],
    summary="Take back all that somebody posted since a moment",
    responses=with_replay_header({}) | responses(INVALID, UNAVAILABLE),
)
async def post_revoke(server: State, body: RevokeIn, author: Author, key: Key, response: Response) -> RevokedOut:
    """Retract every edit of an author from a moment on, for instance since a key was stolen. Safe to repeat.

    Live edits leave the answers in a moment and the weights at the next major retrain, which this makes due.
    """
    keyed = keyed_request("revoke", author, key, body)

    def take_back() -> RevocationResult:
        return revoke(
            server.store,
            author=body.author,
            since=body.since,
            by=author,
            reason=body.reason,
            restore_previous=body.restore_previous,
            keyed=keyed,
            ring=server.ring,
        )

    done = await run_in_threadpool(take_back)
    set_replay_header(response, keyed)
    return RevokedOut(retracted=list(done.retracted), barred=list(done.barred), already=done.already)


@router.post(
    "/admin/purge",
    tags=["admin"],
    summary="Remove what still holds edits that were taken back",
    responses=with_replay_header({}) | responses(NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE),
)
async def post_purge(server: State, body: PurgeIn, author: Author, key: Key, response: Response) -> PurgedOut:
    """Remove older versions, exports and rows that hold these edits, and list what cannot be reached from here. Not to be undone.

    409 for an edit that is live, or that the tensors of the head were trained on: retract it, retrain, then purge.
    """
    keyed = keyed_request("purge", author, key, body)

    def remove() -> PurgeReport:
        return purge(
            server.lifecycle,
            edit_ids=body.edits,
            by=author,
            exports=server.exports,
            forget=server.serving.drop,
            keyed=keyed,
        )

    done = await run_in_threadpool(remove)
    set_replay_header(response, keyed)
    return PurgedOut(
        versions=list(done.versions),
        files=list(done.files),
        exports=list(done.exports),
        rows=done.rows,
        unreachable=list(done.unreachable),
    )


async def _queued(server: ServerState, job: Job, keyed: KeyedRequest, response: Response) -> JobOut:
    set_replay_header(response, keyed)
    await run_in_threadpool(server.ring, job.id)
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    return job_to_out(job, server.store.clock())
