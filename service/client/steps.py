"""A call as a generator without I/O: it yields requests and pauses, and gets the outcome of each.

A driver sends and sleeps (`service/client/errata_client.py`: one with threads, one with asyncio), so that calls, retries and
following are written once.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from service.client.errors import ServerProblem, Unreachable
from service.client.shapes import FaultData

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """One request. `extra_s`: seconds that its answer may take beyond the client's time limit. `retry`: whether it is repeated
    when the server is busy or away.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_s: float = 0.0
    retry: bool = True


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """An answer. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Cut:
    """No answer came. `was_sent` is false where no connection was made; `is_final` where a repetition ends the same way."""

    cause: str
    was_sent: bool
    is_final: bool = False


Outcome = Reply | Cut
Steps = Generator[Send | Pause, Outcome | None, T]


def send(request: Send) -> Steps[Any]:
    """Send a request; the JSON of the answer. Raises ServerProblem if the status is not 2xx, Unreachable without an answer."""
    reply = yield from exchange(request)
    if not reply.is_success:
        raise read_problem(reply)
    return read_json(reply)


def exchange(request: Send) -> Steps[Reply]:
    """Send a request; its answer, whatever the status. Raises Unreachable without an answer."""
    outcome = yield request
    if isinstance(outcome, Reply):
        return outcome
    raise Unreachable("no answer" if outcome is None else outcome.cause)


def read_json(reply: Reply) -> Any:
    """The JSON of an answer. Raises ServerProblem if it is none."""
    try:
        return json.loads(reply.body)
    except ValueError:
        raise ServerProblem(reply.status, "the server's answer is not JSON") from None


def read_problem(reply: Reply) -> ServerProblem:
    """The problem that an answer reports. An answer that is no problem document is reported by its status."""
    try:
        body = json.loads(reply.body)
        fields = [FaultData(field=str(fault["field"]), detail=str(fault.get("detail", ""))) for fault in body.get("errors", ())]
        return ServerProblem(
            reply.status,
            str(body["detail"]),
            type=str(body.get("type", "about:blank")),
            title=str(body.get("title", "")),
            fields=fields,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServerProblem(reply.status, f"the server answered {reply.status}")
