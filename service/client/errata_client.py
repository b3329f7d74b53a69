"""The client of a server's HTTP API, with threads (`ErrataClient`) and with asyncio (`AsyncErrataClient`). It loads no model.

A call is written once, as steps without I/O (`calls.py`, `following.py`); each class drives the steps. Calls raise ServerProblem
if the server refuses them and Unreachable if no answer comes. Requests are repeated as `Retries` says.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from copy import copy
from typing import Any, Self, TypeVar

import httpx

from service.client import calls, following
from service.client.call_methods import AsyncCall, AsyncListing, BlockingCall, BlockingListing
from service.client.calls import Listing
from service.client.retries import Reachability, Retries, with_retries
from service.client.steps import Cut, Outcome, Pause, Reply, Send, Steps
from service.domain.errors import Refused

R = TypeVar("R")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANSWER_S = 60.0  # for a call that moves the head on a busy machine
Observe = Callable[[Send, Outcome], None]


class ErrataClient:
    """A client of the server at `url`. `timeout_s`: seconds that one answer may take. `observe` is called with each request and
    its outcome. `transport` replaces the network. Raises Refused if `url` is no address.
    """

    post_edit = BlockingCall(calls.post_edit)
    post_edits = BlockingCall(calls.post_edits)
    get_edit = BlockingCall(calls.get_edit)
    list_edits = BlockingListing(calls.list_edits)
    retract = BlockingCall(calls.retract)
    generate = BlockingCall(calls.generate)
    ask_versions = BlockingCall(calls.ask_versions)
    list_aliases = BlockingCall(calls.list_aliases)
    get_alias = BlockingCall(calls.get_alias)
    set_alias = BlockingCall(calls.set_alias)
    remove_alias = BlockingCall(calls.remove_alias)
    list_versions = BlockingListing(calls.list_versions)
    get_version = BlockingCall(calls.get_version)
    get_bases = BlockingCall(calls.get_bases)
    rollback = BlockingCall(calls.rollback)
    retrain = BlockingCall(calls.retrain)
    export = BlockingCall(calls.export)
    revoke = BlockingCall(calls.revoke)
    purge = BlockingCall(calls.purge)
    list_jobs = BlockingListing(calls.list_jobs)
    get_job = BlockingCall(calls.get_job)
    cancel_job = BlockingCall(calls.cancel_job)
    evaluate = BlockingCall(calls.evaluate)
    list_evaluations = BlockingListing(calls.list_evaluations)
    get_evaluation = BlockingCall(calls.get_evaluation)
    cancel_evaluation = BlockingCall(calls.cancel_evaluation)
    compare_evaluations = BlockingCall(calls.compare_evaluations)
    compare_versions = BlockingCall(calls.compare_versions)
    get_model = BlockingCall(calls.get_model)
    get_health = BlockingCall(calls.get_health)
    wait_for_edit = BlockingCall(following.wait_for_edit)
    wait_for_refits = BlockingCall(following.wait_for_refits)
    wait_for_job = BlockingCall(following.wait_for_job)
    wait_for_evaluation = BlockingCall(following.wait_for_evaluation)
    follow_job = BlockingCall(following.follow_job)
    follow_evaluation = BlockingCall(following.follow_evaluation)

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = ANSWER_S,
        retries: Retries | None = None,
        observe: Observe | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        address = parse_address(url)
        self.url, self._timeout_s, self._retries = url, timeout_s, retries or Retries()
        self._observe, self._sleep, self._reachability = observe, sleep, Reachability()
        self._http = httpx.Client(base_url=address, transport=transport, trust_env=address.host not in LOOPBACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def with_options(self, *, retries: Retries | None = None, observe: Observe | None = None) -> Self:
        """A client on the same connections, with other retries or another observer."""
        other = copy(self)
        other._retries, other._observe = retries or self._retries, observe or self._observe
        return other

    def run(self, steps: Steps[R]) -> R:
        """Drive the steps of a call; its result."""
        repeated = with_retries(steps, self._retries, self._reachability)
        outcome: Outcome | None = None
        try:
            while True:
                step = repeated.send(outcome)
                if isinstance(step, Pause):
                    self._sleep(step.seconds)
                    outcome = None
                else:
                    outcome = self._exchange(step)
        except StopIteration as end:
            result: R = end.value
            return result

    def iterate(self, listing: Listing[R]) -> Iterator[R]:
        """Every item of a list. A page is read when its first item is asked for."""
        cursor: str | None = None
        while True:
            page = self.run(listing.read_page(cursor))
            yield from page["items"]
            cursor = page.get("next")
            if cursor is None:
                return

    def _exchange(self, request: Send) -> Outcome:
        try:
            response = self._http.request(**_options(request, self._timeout_s))
            outcome: Outcome = _read(response)
        except httpx.RequestError as error:
            outcome = _cut(error)
        if self._observe is not None:
            self._observe(request, outcome)
        return outcome


class AsyncErrataClient:
    """The calls of ErrataClient, to be awaited."""

    post_edit = AsyncCall(calls.post_edit)
    post_edits = AsyncCall(calls.post_edits)
    get_edit = AsyncCall(calls.get_edit)
    list_edits = AsyncListing(calls.list_edits)
    retract = AsyncCall(calls.retract)
    generate = AsyncCall(calls.generate)
    ask_versions = AsyncCall(calls.ask_versions)
    list_aliases = AsyncCall(calls.list_aliases)
    get_alias = AsyncCall(calls.get_alias)
    set_alias = AsyncCall(calls.set_alias)
    remove_alias = AsyncCall(calls.remove_alias)
    list_versions = AsyncListing(calls.list_versions)
    get_version = AsyncCall(calls.get_version)
    get_bases = AsyncCall(calls.get_bases)
    rollback = AsyncCall(calls.rollback)
    retrain = AsyncCall(calls.retrain)
    export = AsyncCall(calls.export)
    revoke = AsyncCall(calls.revoke)
    purge = AsyncCall(calls.purge)
    list_jobs = AsyncListing(calls.list_jobs)
    get_job = AsyncCall(calls.get_job)
    cancel_job = AsyncCall(calls.cancel_job)
    evaluate = AsyncCall(calls.evaluate)
    list_evaluations = AsyncListing(calls.list_evaluations)
    get_evaluation = AsyncCall(calls.get_evaluation)
    cancel_evaluation = AsyncCall(calls.cancel_evaluation)
    compare_evaluations = AsyncCall(calls.compare_evaluations)
    compare_versions = AsyncCall(calls.compare_versions)
    get_model = AsyncCall(calls.get_model)
    get_health = AsyncCall(calls.get_health)
    wait_for_edit = AsyncCall(following.wait_for_edit)
    wait_for_refits = AsyncCall(following.wait_for_refits)
    wait_for_job = AsyncCall(following.wait_for_job)
    wait_for_evaluation = AsyncCall(following.wait_for_evaluation)
    follow_job = AsyncCall(following.follow_job)
    follow_evaluation = AsyncCall(following.follow_evaluation)

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = ANSWER_S,
        retries: Retries | None = None,
        observe: Observe | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        address = parse_address(url)
        self.url, self._timeout_s, self._retries = url, timeout_s, retries or Retries()
        self._observe, self._sleep, self._reachability = observe, sleep, Reachability()
        self._http = httpx.AsyncClient(base_url=address, transport=transport, trust_env=address.host not in LOOPBACK)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, steps: Steps[R]) -> R:
        """Drive the steps of a call; its result."""
        repeated = with_retries(steps, self._retries, self._reachability)
        outcome: Outcome | None = None
        try:
            while True:
                step = repeated.send(outcome)
                if isinstance(step, Pause):
                    await self._sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._exchange(step)
        except StopIteration as end:
            result: R = end.value
            return result

    async def iterate(self, listing: Listing[R]) -> AsyncIterator[R]:
        """Every item of a list. A page is read when its first item is asked for."""
        cursor: str | None = None
        while True:
            page = await self.run(listing.read_page(cursor))
            for item in page["items"]:
                yield item
            cursor = page.get("next")
            if cursor is None:
                return

    async def _exchange(self, request: Send) -> Outcome:
        try:
            response = await self._http.request(**_options(request, self._timeout_s))
            outcome: Outcome = _read(response)
        except httpx.RequestError as error:
            outcome = _cut(error)
        if self._observe is not None:
            self._observe(request, outcome)
        return outcome


def parse_address(url: str) -> httpx.URL:
    """The address of a server. Raises Refused if it is no http or https address."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise Refused("the server's address must be one such as http://127.0.0.1:8000", field="url")
    return address


def _options(request: Send, timeout_s: float) -> dict[str, Any]:
    """The arguments of httpx for a request."""
    options = {"method": request.method, "url": request.path, "params": request.query, "headers": request.headers}
    return options | {"json": request.body, "timeout": timeout_s + request.extra_s}


def _read(response: httpx.Response) -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content)


def _cut(error: httpx.RequestError) -> Cut:
    was_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol)
    is_final = isinstance(error, httpx.UnsupportedProtocol) or not isinstance(error, httpx.TransportError)
    return Cut(type(error).__name__, was_sent, is_final)
