"""The configuration of uvicorn that every port of a server shares, so that none is less guarded than another."""

from typing import Any

import uvicorn

from service.api.http_protocol import DeadlineProtocol
from service.settings import Limits


def make_config(app: Any, limits: Limits, *, backlog: int, drain_s: float, **more: Any) -> uvicorn.Config:
    """h11 with our deadlines and `limits`, no web sockets, no access log of uvicorn's own, no header that names the server.

    `backlog` connections wait to be accepted, and requests in flight get `drain_s` at a stop. `more` are further options.
    """
    return uvicorn.Config(
        app,
        http=DeadlineProtocol.with_limits(limits),
        ws="none",
        backlog=backlog,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        h11_max_incomplete_event_size=limits.header_bytes,
        **more,
    )
