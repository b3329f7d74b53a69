"""`/admin`: rollback, retrain, export, revoke and purge."""

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
    if_match: Annotated[str | None, Header(alias="If-Match", description='the epoch that the caller saw, such as `"7"`')] = None,
) -> int | None:
    """The epoch that a rollback requires; None for any. Raises Refused for a header that is no epoch."""
    if if_match is None:
        return None
    digits = if_match.strip().strip('"')
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
    """The OpenAPI declaration of a queued job."""
    headers = {"Location": {"description": "the address of the job", "schema": {"type": "string"}}}
    content = {"application/json": {"example": example}}
    return {202: {"description": "Accepted; follow it at `Location`.", "headers": headers, "content": content}}


@router.post(
    "/admin/rollback",
    tags=["admin"],
    summary="Answer as an older version did",
    responses=with_replay_header({}) | responses(NOT_FOUND, CONFLICT, GONE, STALE, INVALID, CORRUPT, UNAVAILABLE),
)
async def rollback(server: State, body: RollbackIn, epoch: Epoch, author: Author, key: Key, response: Response) -> RollbackOut:
    """Publish an older version's overlay and edits under a new number, without the edits retracted since.

    The rollback is in effect when the call answers. Queued edits stay queued. `If-Match` refuses the rollback if the head has
    moved. A repeated call with the same `Idempotency-Key` gets the first answer, even if the head has moved since.
    """
    keyed = keyed_request("rollback", author, key, body, if_match=epoch)

    def publish_rollback() -> RollbackResult:
        return roll_back(
            server.lifecycle,
            to=body.to,
            author=author,
            reason=body.reason,
            requeue=body.requeue,
            if_match=epoch,
            keyed=keyed,
        )

    result = await run_in_threadpool(publish_rollback)
    set_replay_header(response, keyed)
    await run_in_threadpool(server.ring, "")
    return RollbackOut(version=result.version, restored=result.restored, epoch=result.epoch, rolled_back=list(result.rolled_back))


@router.post(
    "/admin/retrain",
    tags=["admin"],
    status_code=202,
    summary="Move every live edit into the weights",
    responses=with_replay_header(accepted(EXAMPLE_QUEUED), 202) | responses(CONFLICT, INVALID, UNAVAILABLE),
)
async def post_retrain(server: State, body: RetrainIn, author: Author, key: Key, response: Response) -> JobOut:
    """Request a retrain, from the base model or from the head's tensors.

    If a retrain waits, or runs with all live edits and the requested method, the answer is that job and no second one is queued.
    A retrain that waits takes the method of the latest request. 409 if the tensors hold every edit already, unless a major
    retrain or a method is requested.
    """
    keyed = keyed_request("retrain", author, key, body)

    def request() -> Job:
        return request_retrain(server.store, reason=body.reason, author=author, mode=body.mode, method=body.method, keyed=keyed)

    return await _answer_queued(server, await run_in_threadpool(request), keyed, response)


@router.post(
    "/admin/export",
    tags=["admin"],
    status_code=202,
    summary="Write a version as a Hugging Face checkpoint",
    responses=with_replay_header(accepted(EXAMPLE_EXPORT), 202)
    | responses(NOT_FOUND, CONFLICT, GONE, INVALID, CORRUPT, UNAVAILABLE),
)
async def post_export(server: State, body: ExportIn, author: Author, key: Key, response: Response) -> JobOut:
    """Queue an export to a new folder in the server's folder of exports; `result` of the job has the path. 409 if the name is
    taken.

    `from_pretrained` loads the export, unless the version has a window. Then the interventions of its last edits lie beside the
    weights: `load_errata.py` loads both, `from_pretrained` refuses, and `warning` in the job's `result` says how many edits the
    weights lack. With `consolidate` the server retrains first, and exports the version that the retrain publishes.
    """
    number = {"head": None, "base": server.base_version}[body.version] if isinstance(body.version, str) else body.version
    keyed = keyed_request("export", author, key, body)

    def request() -> Job:
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

    return await _answer_queued(server, await run_in_threadpool(request), keyed, response)


@router.post(
    "/admin/revoke",
    tags=["admin"],
    summary="Retract everything that an author posted since a moment",
    responses=with_replay_header({}) | responses(INVALID, UNAVAILABLE),
)
async def post_revoke(server: State, body: RevokeIn, author: Author, key: Key, response: Response) -> RevokedOut:
    """Retract every edit that an author posted since a moment, for instance since a key was stolen. Safe to repeat.

    Live edits leave the answers in a moment. They leave the weights at the next major retrain, which this call makes due.
    """
    keyed = keyed_request("revoke", author, key, body)

    def revoke_edits() -> RevocationResult:
        revocation = revoke(
            server.store,
            author=body.author,
            since=body.since,
            by=author,
            reason=body.reason,
            restore_previous=body.restore_previous,
            keyed=keyed,
            ring=server.ring,
        )
        server.state_waiting()
        return revocation

    result = await run_in_threadpool(revoke_edits)
    set_replay_header(response, keyed)
    return RevokedOut(retracted=list(result.retracted), barred=list(result.barred), already=result.already)


@router.post(
    "/admin/purge",
    tags=["admin"],
    summary="Remove everything that is still stored of retracted edits",
    responses=with_replay_header({}) | responses(NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE),
)
async def post_purge(server: State, body: PurgeIn, author: Author, key: Key, response: Response) -> PurgedOut:
    """Remove older versions, exports and rows that hold these edits, and list the places that the server cannot reach. A purge
    cannot be undone.

    409 for an edit that is live, or that the head's tensors were trained on: retract the edit, retrain, then purge.
    """
    keyed = keyed_request("purge", author, key, body)

    def purge_edits() -> PurgeReport:
        return purge(
            server.lifecycle,
            edit_ids=body.edits,
            by=author,
            exports=server.exports,
            forget=server.serving.drop,
            keyed=keyed,
        )

    report = await run_in_threadpool(purge_edits)
    set_replay_header(response, keyed)
    return PurgedOut(
        versions=list(report.versions),
        files=list(report.files),
        exports=list(report.exports),
        rows=report.rows,
        unreachable=list(report.unreachable),
    )


async def _answer_queued(server: ServerState, job: Job, keyed: KeyedRequest, response: Response) -> JobOut:
    set_replay_header(response, keyed)
    await run_in_threadpool(server.ring, job.id)
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    return job_to_out(job, server.store.clock())
