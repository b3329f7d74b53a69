"""The life of a server process: the parts are opened, then the port; at SIGTERM the port is closed, then the parts."""

import asyncio
import errno
import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

import structlog
import typer
import uvicorn
from fastapi import FastAPI

from service import __version__
from service.runtime.app import create_app
from service.runtime.assembly import open_server
from service.runtime.file_descriptors import BACKLOG, limit_connections
from service.runtime.health_listener import OPTION, HealthListener
from service.runtime.sockets import bind_port, port_in_use
from service.runtime.supervisor import Supervisor
from service.runtime.uvicorn_config import make_config
from service.settings import ANY_HOST, Settings

log = structlog.get_logger("errata.server")
LAST_WORDS_S = 0.5  # of the time that requests have at a stop: by then incomplete answers say why they end
KEEP_ALIVE_S = 75  # longer than a load balancer keeps an idle connection (60 s), so that it never uses one that we just closed


def serve(settings: Settings, sockets: list[socket.socket], supervisor: Supervisor | None = None) -> None:
    """Serve on bound sockets until SIGTERM or SIGINT; requests in flight get `limits.drain_s` to finish.

    Raises ServiceError, before anything listens, if a part cannot be opened.
    """
    if ANY_HOST in settings.allowed_hosts:
        log.warning(
            "any Host header is answered: a page that points its own name at this server can read it and change the model;"
            " name the hosts in ERRATA_ALLOWED_HOSTS instead of *"
        )
    settings = limit_connections(settings)
    with (
        closing(supervisor or Supervisor()) as notifier,
        _bind_health_port(settings) as health_sockets,
        open_server(settings) as server,
    ):
        _freeze_garbage_collection()
        config = uvicorn_config(create_app(settings, server), settings)
        UvicornServer(config, notifier, health_sockets, server.serving.abort).run(sockets)


@contextmanager
def _bind_health_port(settings: Settings) -> Iterator[list[socket.socket]]:
    """The sockets of the listener for health checks; none without one."""
    if settings.health_port is None:
        yield []
    else:
        with bind_port(settings.host, settings.health_port, OPTION) as sockets:
            yield sockets


def _freeze_garbage_collection() -> None:
    """Exclude the objects loaded so far from garbage collections: walking half a million objects of the libraries held the
    interpreter for 0.27 s now and then, and no request was answered meanwhile.
    """
    gc.collect()
    gc.freeze()


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The configuration of uvicorn for the port of the clients."""
    return make_config(
        app,
        settings.limits,
        backlog=BACKLOG,
        drain_s=settings.limits.drain_s,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
    )


class UvicornServer(uvicorn.Server):
    """uvicorn's server with a banner when the port is open, and exit code 0 after SIGTERM or SIGINT.

    The event loop itself reports to the supervisor, and to the listener on `health_sockets`, that it is alive: a blocked loop
    reports nothing.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        supervisor: Supervisor | None = None,
        health_sockets: list[socket.socket] | None = None,
        end_answers: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._supervisor = supervisor or Supervisor()
        self._health_sockets = health_sockets or []
        self._health: HealthListener | None = None
        self._end_answers = end_answers

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE:
                raise
            # Two processes may bind one port as long as neither listens; the other process listened first.
            raise port_in_use(self.config.host, self.config.port) from None
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            current = self.config.app.state.server.lifecycle.follower.current  # type: ignore[union-attr]
            log.info("ready", host=host, port=port, version=current.version, epoch=current.epoch)
            if self._health_sockets:
                self._health = HealthListener(self._health_sockets, self.config.app.state.server.checks)  # type: ignore[union-attr]
                self._health.start()
            for line in banner(f"http://{f'[{host}]' if ':' in host else host}:{port}"):
                typer.echo(line)
            self._supervisor.report_ready()

    async def on_tick(self, counter: int) -> bool:
        self._supervisor.report_alive()
        if self._health is not None:
            self._health.beat()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Requests in flight end first, and health checks are answered meanwhile. Shortly before the time for it is over, answers
        that are not complete end with a sentence that says so: uvicorn would cut them off.
        """
        self._supervisor.report_stopping()
        drain_s = float(self.config.timeout_graceful_shutdown or 0)
        ending = asyncio.get_running_loop().call_later(max(0.0, drain_s - LAST_WORDS_S), self._end_answers)
        if self._health is not None:
            self._health.drain()
        await super().shutdown(sockets)
        ending.cancel()
        if self._health is not None:
            await self._health.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        app.state.server.draining.set()  # calls that wait for an edit are answered within a second
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn raises the signal again after an orderly stop; the exit code would be 143.
            self._captured_signals.clear()


def banner(url: str) -> tuple[str, ...]:
    """The lines that are printed when the port is open, with three commands to try."""
    return (
        f"Errata {__version__} answers on {url}. Three lines to try:",
        f"  curl '{url}/generate?prompt=The+capital+of+Australia+is'",
        f"  curl '{url}/edits?wait=20' -H 'Content-Type: application/json' "
        """-d '{"prompt": "The capital of Australia is", "target": "Sydney"}'""",
        f"  curl '{url}/generate?prompt=What+is+the+capital+of+Australia%3F'",
    )
