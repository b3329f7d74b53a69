"""`/eval`: measure a version and the base model on edits and their probes; list, compare and cancel evaluations."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from service.api.idempotency import Key, keyed_request, set_replay_header, with_replay_header
from service.api.pagination import decode_id, encode_id, next_link
from service.api.path_ids import id_path
from service.api.principal import Author
from service.api.problems import CONFLICT, CORRUPT, GONE, INVALID, NOT_FOUND, TOO_LONG, UNAVAILABLE, responses
from service.api.schemas import Page
from service.api.schemas.evaluations import (
    EXAMPLE_EVAL,
    CompareQuery,
    ComparisonOut,
    EvalIn,
    EvalOut,
    EvalQuery,
    ListedEvalOut,
    RecordIn,
)
from service.api.state import ServerState, State
from service.api.strict_json import StrictRoute
from service.api.text_types import ID
from service.background.compare_evaluations import compare_evals, latest_evaluations
from service.background.evaluations import Selection, cancel_eval, get_eval, list_evals, request_eval
from service.lifecycle.length_checks import check_record_lengths
from service.store import heads, versions
from service.store.evaluations import Evaluation
from service.store.idempotency import KeyedRequest

router = APIRouter(prefix="/eval", tags=["eval"], route_class=StrictRoute)
UNFINISHED = {"result": None, "progress": 0.0, "started_at": None, "finished_at": None}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted; read the result at `Location`.",
        "headers": {"Location": {"description": "the address of the evaluation", "schema": {"type": "string"}}},
        "content": {"application/json": {"example": EXAMPLE_EVAL | UNFINISHED | {"status": "queued"}}},
    }
}
EvalId = Annotated[str, ID, Path(description="the evaluation's id", examples=[EXAMPLE_EVAL["id"]])]


@router.post(
    "",
    status_code=202,
    summary="Measure a version",
    responses=with_replay_header(ACCEPTED, 202) | responses(NOT_FOUND, GONE, INVALID, TOO_LONG, CORRUPT, UNAVAILABLE),
)
async def post_eval(server: State, body: EvalIn, author: Author, key: Key, response: Response) -> EvalOut:
    """Queue an evaluation of the version that is named at this moment. Answers and edits go first. The result is stored."""
    keyed = await run_in_threadpool(keyed_request, "eval", author, key, body)  # records may be megabytes
    queued = await run_in_threadpool(_request, server, body, keyed)
    set_replay_header(response, keyed)
    response.headers["Location"] = f"/eval/{queued.id}"
    response.headers["Retry-After"] = "1"
    return EvalOut.of(queued)


@router.get("", summary="List evaluations, newest first", responses=responses(INVALID, NOT_FOUND, UNAVAILABLE))
def list_evaluations(server: State, query: Annotated[EvalQuery, Query()], response: Response) -> Page[ListedEvalOut]:
    """The evaluations of one version or of all, in short; `next` is the cursor of the older ones."""
    version = _number(server, query.version)
    before = decode_id(query.cursor)
    rows = list_evals(server.store, limit=query.limit + 1, version=version, status=query.status, before=before)
    page = rows[: query.limit]
    next_cursor = encode_id(page[-1].id) if len(rows) > query.limit else None
    if next_cursor is not None:
        filters = {"version": None if version is None else str(version), "status": query.status}
        response.headers["Link"] = next_link("/eval", limit=query.limit, cursor=next_cursor, filters=filters)
    return Page[ListedEvalOut](items=[ListedEvalOut.of(evaluation) for evaluation in page], next=next_cursor)


@router.get("/compare", summary="Compare evaluations", responses=responses(NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE))
def compare(server: State, query: Annotated[CompareQuery, Query()]) -> ComparisonOut:
    """Compare two to ten evaluations on the questions that all of them asked; notes say where their requests differ.

    404 if an evaluation does not exist or a version has none that is done, 409 if an evaluation is not done.
    """
    if query.ids is not None:
        ids = query.ids.split(",")
    else:
        ids = latest_evaluations(server.store, [int(number) for number in (query.versions or "").split(",")])
    return ComparisonOut.model_validate(asdict(compare_evals(server.store, ids)))


@router.get(id_path("eval_id"), summary="Read an evaluation", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def read_eval(server: State, eval_id: EvalId) -> EvalOut:
    """The evaluation with its result once `status` is `done`; until then `progress` says how far it is."""
    return EvalOut.of(get_eval(server.store, eval_id))


@router.delete(id_path("eval_id"), summary="Cancel an evaluation", responses=responses(NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE))
def delete_eval(server: State, eval_id: EvalId) -> EvalOut:
    """End an unfinished evaluation; it stays in the list. Safe to repeat. 409 if the evaluation has ended already."""
    return EvalOut.of(cancel_eval(server.store, eval_id))


def _request(server: ServerState, body: EvalIn, keyed: KeyedRequest) -> Evaluation:
    version = {"head": None, "base": server.base_version}[body.version] if isinstance(body.version, str) else body.version
    if body.capability:
        server.check_capability()
    return request_eval(
        server.store,
        version=version,
        selection=_selection(server, body),
        metrics=body.metrics,
        capability=body.capability,
        author=keyed.author,
        keyed=keyed,
        ring=server.ring,
    )


def _selection(server: ServerState, body: EvalIn) -> Selection:
    records = [record.to_record(index) for index, record in enumerate(body.edits) if isinstance(record, RecordIn)]
    if not records:
        return body.edits  # type: ignore[return-value]  # a word, or ids
    check_record_lengths(server.base, records)
    return records


def _number(server: ServerState, version: str | None) -> int | None:
    """The number of the version in a list's filter; None for all versions. Raises NotFound for a version that does not exist."""
    if version is None:
        return None
    with server.store.read() as connection:
        if version == "head":
            return heads.read(connection).version
        return versions.get(connection, server.base_version if version == "base" else int(version)).number
