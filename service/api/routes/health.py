"""`/health/*`: health checks of the process and the server. `/model`: the served model."""

from collections.abc import Mapping

from fastapi import APIRouter, Response

from service.api.schemas.versions import HealthOut, ModelOut
from service.api.state import State

DEGRADED = ("head", "files", "checkpoints")  # parts that may have a fault while the server still answers
AWAITED = ("edits",)  # what a server gets ready for while it answers
router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Is the process alive")
async def live() -> HealthOut:
    """Answers as long as the event loop runs. Restart the process if there is no answer."""
    return HealthOut(status="ok")


@router.get("/health/startup", summary="Has the server started")
async def startup() -> HealthOut:
    """Answers 200 as soon as the port is open. The head is loaded and verified before."""
    return HealthOut(status="ok")


@router.get(
    "/health/ready",
    summary="May requests be sent here",
    responses={
        503: {
            "model": HealthOut,
            "description": "No: the database does not answer, a part has ended, the weights in memory changed, or the server is"
            " stopping.",
        }
    },
)
async def ready(server: State, response: Response) -> HealthOut:
    """200 with `degraded` if the database names a newer version than the one that answers, or if the next start would not find
    its model. 503 if requests should go elsewhere. `edits` says what accepted edits still wait for after a start, and does not
    change the status: prompts are answered meanwhile.
    """
    response.status_code, health = judge_readiness(await server.checks())
    return health


def judge_readiness(checks: Mapping[str, str]) -> tuple[int, HealthOut]:
    """The status and the answer of `/health/ready` for the checks of a server's parts."""
    if any(state != "ok" and name not in (*DEGRADED, *AWAITED) for name, state in checks.items()):
        return 503, HealthOut(status="unavailable", checks=dict(checks))
    is_whole = all(checks[name] == "ok" for name in DEGRADED)
    return 200, HealthOut(status="ok" if is_whole else "degraded", checks=dict(checks))


@router.get("/model", summary="What is served")
def model(server: State) -> ModelOut:
    """The base model, the head, and the measurements of the head."""
    base = server.base
    return ModelOut(
        base=base.name,
        fingerprint=base.fingerprint,
        family=base.anatomy.family,
        blocks=base.anatomy.depth,
        width=base.anatomy.width,
        context=base.context_length,
        surfaces=list(base.surfaces),
        device=str(base.device),
        dtype=server.arithmetic.dtype,
        dtype_reason=server.arithmetic.dtype_reason,
        torch_threads=server.arithmetic.threads,
        torch_threads_reason=server.arithmetic.threads_reason,
        method=server.settings.default_method,
        **server.summary(),
    )
