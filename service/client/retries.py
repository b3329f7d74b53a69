"""Repeated requests: a POST that got no answer is sent again under the same idempotency key, so that it takes effect once."""

import time
import uuid
from typing import Any

import httpx

POLL_S = 0.2
BUSY_S = 600.0  # a server that answers 503 is asked again for so long
AWAY_S = 60.0  # a server that does not answer is asked again for so long: a restart takes that


def post_with_retries(client: httpx.Client, path: str, body: dict[str, Any], *, timeout_s: float | None = None) -> httpx.Response:
    """POST a JSON body; repeat the request while the server answers 503 or breaks the connection.

    The first refused connection raises at once: a server that was never there is not waited for. Raises httpx.TransportError.
    """
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    options: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
    busy_until, away_until = time.monotonic() + BUSY_S, time.monotonic() + AWAY_S
    has_reached = False
    while True:
        try:
            response = client.post(path, json=body, headers=headers, **options)
        except httpx.TransportError as error:
            has_reached = has_reached or not isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol))
            if not has_reached or time.monotonic() > away_until:
                raise
            time.sleep(POLL_S)
            continue
        if response.status_code != 503 or time.monotonic() > busy_until:
            return response
        has_reached = True
        time.sleep(float(response.headers.get("Retry-After", "1")))
