"""A network whose answers are given one by one, for both clients."""

from collections.abc import Sequence
from typing import Any

import httpx

from service.client.errata_client import AsyncErrataClient, ErrataClient
from service.client.retries import Retries

Break = Exception | int | httpx.Response


class ScriptedNetwork(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """First breaks or is busy as listed, then answers `{}`. Time passes in pauses alone."""

    def __init__(self, *breaks: Break) -> None:
        self.breaks = list(breaks)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    @property
    def keys(self) -> Sequence[str]:
        """The idempotency keys of the requests."""
        return [request.headers["Idempotency-Key"] for request in self.requests]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        broken: Any = self.breaks.pop(0) if self.breaks else httpx.Response(200, json={})
        if isinstance(broken, Exception):
            raise broken
        return httpx.Response(broken) if isinstance(broken, int) else broken

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)

    def client(self, retries: Retries | None = None) -> ErrataClient:
        client = ErrataClient("http://server", retries=retries, transport=self, sleep=self.pauses.append)
        client._reachability.clock = lambda: sum(self.pauses)
        return client

    def async_client(self) -> AsyncErrataClient:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        client = AsyncErrataClient("http://server", transport=self, sleep=pause)
        client._reachability.clock = lambda: sum(self.pauses)
        return client
