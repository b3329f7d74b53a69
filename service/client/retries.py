"""Sending again what a server did not answer: under one key, so that it takes effect once, however often it arrives."""

import time
import uuid
from typing import Any

import httpx

LOOK_S = 0.2
TRIES_S = 600.0  # how long a server that is busy is asked again
AWAY_S = 60.0  # how long one that does not answer: a restart takes that


def post(client: httpx.Client, path: str, body: dict[str, Any], *, timeout_s: float | None = None) -> httpx.Response:
    """Post, again and again while the server says that too much waits or breaks off. One that was never there is not waited for:
    the first connection that is refused is the answer.
    """
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    given: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
    busy, away = time.monotonic() + TRIES_S, time.monotonic() + AWAY_S
    has_reached = False
    while True:
        try:
            response = client.post(path, json=body, headers=headers, **given)
        except httpx.TransportError as error:
            has_reached = has_reached or not isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol))
            if not has_reached or time.monotonic() > away:
                raise
            time.sleep(LOOK_S)
            continue
        if response.status_code != 503 or time.monotonic() > busy:
            return response
        has_reached = True
        time.sleep(float(response.headers.get("Retry-After", "1")))
