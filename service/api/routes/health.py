"""`/health/*` for those who start and stop the server, and `/model` for those who ask what it serves."""

from fastapi import APIRouter, Response

from service.api.schemas.versions import HealthOut, ModelOut
from service.api.state import State

DEGRADED = ("head", "files", "checkpoints")  # what may be wrong while requests are still answered here
router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Is the process alive")
async def live() -> HealthOut:
    """Answers as long as the event loop turns; restart the process when it does not."""
    return HealthOut(status="ok")


@router.get("/health/startup", summary="Has the server started")
async def startup() -> HealthOut:
    """Answers 200 from the moment that the port is open: the head is loaded and verified before that."""
    return HealthOut(status="ok")


@router.get(
    "/health/ready",
    summary="May requests be sent here",
    responses={
        503: {
            "model": HealthOut,
            "description": "Not now: the database does not answer, a part has died, the weights in memory changed, or the server"
            " is stopping.",
        }
    },
)
async def ready(server: State, response: Response) -> HealthOut:
    """200 with `degraded` if an older version answers than the rows name, or if the next start will not find the model it needs;
    503 if requests should go elsewhere.
    """
    checks = await server.checks()
    broken = [name for name, state in checks.items() if state != "ok" and name not in DEGRADED]
    if broken:
        response.status_code = 503
        return HealthOut(status="unavailable", checks=checks)
    return HealthOut(status="ok" if all(checks[name] == "ok" for name in DEGRADED) else "degraded", checks=checks)


@router.get("/model", summary="What is served")
def model(server: State) -> ModelOut:
    """The base model, the head, and how well the head holds what it was taught."""
    base = server.base
    return ModelOut(
        base=server.settings.model,
        fingerprint=base.fingerprint,
        family=base.anatomy.family,
        blocks=base.anatomy.depth,
        width=base.anatomy.width,
        context=base.context_length,
        surfaces=list(base.surfaces),
        device=str(base.device),
        dtype=str(base.dtype).removeprefix("torch."),
        method=server.settings.method,
        **server.summary(),
    )
