"""A listener of its own for health checks, in a thread with an event loop of its own.

On the port of the clients a health check waits its turn, which may be behind a thousand connections that came at once. Here it
waits for other health checks alone. That the clients' event loop runs is told by its beat.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

import structlog
import uvicorn
from starlette.responses import Response

from service.api.problems import NO_METHOD, NOT_FOUND, Problem
from service.api.routes.health import judge_readiness
from service.api.schemas.versions import HealthOut
from service.runtime.file_descriptors import HEALTH_CONNECTIONS
from service.runtime.sockets import port_in_use
from service.runtime.uvicorn_config import make_config
from service.settings import Limits

Checks = Callable[[], Awaitable[Mapping[str, str]]]
STUCK_S = 10.0  # without a beat for so long the clients' event loop counts as blocked
CHECKS_S = 4.0  # for the checks of readiness, which take two seconds at most while that loop runs
DRAIN_S = 1.0
STOP_S = 5.0
OPEN_S = 0.01
OPTION = "ERRATA_HEALTH_PORT"
LIVE, STARTUP, READY = PATHS = ("/health/live", "/health/startup", "/health/ready")
METHODS = ("GET", "HEAD")
LIMITS = Limits(connections=HEALTH_CONNECTIONS, receive_s=5.0, send_s=5.0)
log = structlog.get_logger("errata.server")


class HealthListener:
    """Answers `/health/*` on bound sockets from its start to its end. `checks` runs on the loop of the caller."""

    def __init__(self, sockets: list[socket.socket], checks: Checks) -> None:
        self._sockets, self._checks = sockets, checks
        self._loop = asyncio.get_running_loop()
        self._last_beat = monotonic()
        self._is_draining = False
        config = make_config(self._answer, LIMITS, backlog=HEALTH_CONNECTIONS, drain_s=DRAIN_S, interface="asgi3", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="errata-health", daemon=True)

    def start(self) -> None:
        """Listen. Raises Conflict if another process listens on the port."""
        host, port = self._sockets[0].getsockname()[:2]
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise port_in_use(host, port, OPTION)
            self._thread.join(OPEN_S)
        log.info("health checks", host=host, port=port)

    def beat(self) -> None:
        """Report that the clients' event loop runs."""
        self._last_beat = monotonic()

    def drain(self) -> None:
        """The clients' event loop ends in an orderly way: from now on its beat is not missed."""
        self._is_draining = True

    async def stop(self) -> None:
        """Close the listener. Takes STOP_S at most, in which checks that began may ask the clients' loop."""
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join, STOP_S)

    def live(self) -> tuple[int, HealthOut]:
        """Whether the clients' event loop runs."""
        silent_s = monotonic() - self._last_beat
        if silent_s < STUCK_S or self._is_draining:
            return 200, HealthOut(status="ok")
        return 503, HealthOut(status="unavailable", checks={"loop": f"blocked for {silent_s:.0f} s"})

    async def ready(self) -> tuple[int, HealthOut]:
        """Whether requests may be sent to the clients' port. While that ends, its loop is not asked."""
        if self._is_draining:
            return 503, HealthOut(status="unavailable", checks={"server": "stopping"})
        checking = asyncio.run_coroutine_threadsafe(self._run_checks(), self._loop)
        try:
            return judge_readiness(await asyncio.wait_for(asyncio.wrap_future(checking), CHECKS_S))
        except TimeoutError:
            return 503, HealthOut(status="unavailable", checks={"loop": f"no answer within {CHECKS_S:g} s"})

    async def _run_checks(self) -> Mapping[str, str]:
        return await self._checks()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        response = await self._respond(scope["method"], scope["path"])
        response.headers["Connection"] = "close"  # so that a client that sends many requests at once holds no place for long
        await response(scope, receive, send)

    async def _respond(self, method: str, path: str) -> Response:
        if path not in PATHS:
            return Problem(NOT_FOUND, f"This port answers {', '.join(PATHS)} alone.").response()
        if method not in METHODS:
            return Problem(NO_METHOD, "Health checks are read with GET.", headers={"Allow": ", ".join(METHODS)}).response()
        status, health = await self.ready() if path == READY else self.live() if path == LIVE else (200, HealthOut(status="ok"))
        return Response(health.model_dump_json(), status, headers={"Cache-Control": "no-store"}, media_type="application/json")
