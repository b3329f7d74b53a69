"""The HTTP edge with a route that does nothing, served for real on a free port of this machine."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query

from service.api import problems
from service.api.middleware import RequestMiddleware
from service.api.schemas.edits import BatchIn, EditIn, ListQuery
from service.api.strict_json import StrictRoute
from service.domain.errors import Corrupt, Gone, Stale, TooLong, Unavailable
from service.runtime.server import uvicorn_config
from service.settings import Settings
from tests.api.uvicorn_thread import serve_in_thread

ERRORS = {
    "stale": Stale("the head has moved"),
    "gone": Gone("it was collected"),
    "long": TooLong("prompt must have at most 3 tokens", field="prompt"),
    "later": Unavailable("the queue is full", retry_after_s=3),
    "corrupt": Corrupt("the checkpoint is not what its row says"),
    "bug": RuntimeError("a secret in a message"),
}


def edge_app(settings: Settings) -> FastAPI:
    """An application with the real middleware, JSON, schemas and problems, and routes that only count."""
    app = FastAPI(redirect_slashes=False, openapi_url=None)
    app.state.reached = 0
    router = APIRouter(route_class=StrictRoute)

    def reach() -> dict[str, Any]:
        app.state.reached += 1
        return {"reached": app.state.reached}

    @router.post("/edits")
    def edit(_edit: EditIn) -> dict[str, Any]:
        return reach()

    @router.post("/edits/batch")
    def batch(_batch: BatchIn) -> dict[str, Any]:
        return reach()

    @router.get("/edits")
    def list_edits(_query: Annotated[ListQuery, Query()]) -> dict[str, Any]:
        return reach()

    @router.get("/errors/{name}")
    def fail(name: str) -> None:
        raise ERRORS[name]

    @router.get("/large")
    def large() -> dict[str, Any]:
        return {"text": "x" * 50_000_000}

    app.include_router(router)
    problems.install(app)
    app.add_middleware(RequestMiddleware, settings=settings)
    return app


@contextmanager
def serve_edge(app: FastAPI, settings: Settings) -> Iterator[int]:
    """Serve `app` with the deadlines of `settings`. Yields the port."""
    with serve_in_thread(uvicorn_config(app, settings.model_copy(update={"port": 0}))) as port:
        yield port


def connect(port: int, timeout_s: float = 10) -> socket.socket:
    """A plain connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset counts as closed."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received
