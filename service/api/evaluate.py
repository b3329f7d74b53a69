"""`/eval`: measure a version on edits and their probes, beside the base model."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from starlette.concurrency import run_in_threadpool

from service.api.parts import Running
from service.api.principal import Author
from service.api.problems import CORRUPT, GONE, INVALID, NOT_FOUND, TOO_LONG, UNAVAILABLE, responses
from service.api.schemas.evaluate import EXAMPLE_EVAL, EvalIn, EvalOut
from service.api.strict_json import StrictRoute
from service.lifecycle.evaluate import get_eval, request_eval
from service.lifecycle.fits import check_fits
from service.store.evals import Evaluation

router = APIRouter(prefix="/eval", tags=["eval"], route_class=StrictRoute)
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted; read the result at `Location`.",
        "headers": {"Location": {"description": "where the evaluation is read", "schema": {"type": "string"}}},
        "content": {"application/json": {"example": EXAMPLE_EVAL | {"status": "queued", "result": None, "finished_at": None}}},
    }
}
EvalId = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,64}$", description="the evaluation's id", examples=[EXAMPLE_EVAL["id"]])]


@router.post(
    "",
    status_code=202,
    summary="Measure a version",
    responses=ACCEPTED | responses(NOT_FOUND, GONE, INVALID, TOO_LONG, CORRUPT, UNAVAILABLE),
)
async def post_eval(running: Running, wanted: EvalIn, author: Author, response: Response) -> EvalOut:
    """Queue an evaluation. It is pinned to the version of this moment, and its result is kept."""
    queued = await run_in_threadpool(_request, running, wanted, author)
    response.headers["Location"] = f"/eval/{queued.id}"
    response.headers["Retry-After"] = "1"
    return EvalOut.of(queued)


@router.get("/{eval_id}", summary="Read an evaluation", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def read_eval(running: Running, eval_id: EvalId) -> EvalOut:
    """The result, once `status` is `done`."""
    return EvalOut.of(get_eval(running.store, eval_id))


def _request(running: Running, wanted: EvalIn, author: str) -> Evaluation:
    version = {"head": None, "base": 0}[wanted.version] if isinstance(wanted.version, str) else wanted.version
    asked: Any = wanted.edits
    if isinstance(asked, list) and not isinstance(asked[0], str):
        asked = [edit.to_domain(running.settings.method) for edit in asked]
        check_fits(running.base, asked)
    return request_eval(running.store, version=version, asked=asked, author=author, ring=running.ring)
