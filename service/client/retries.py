"""Repeated requests: a request that got no answer is sent again, a POST under the same idempotency key, so that it takes effect
once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from service.client.steps import Outcome, Pause, Reply, Send, Steps, T

BUSY = (429, 503)


@dataclass(frozen=True)
class Retries:
    """How long a request is repeated, in seconds from its first attempt.

    `busy_s`: while the server answers 429 or 503; each pause is what the answer's Retry-After says, or `default_pause_s`.
    `away_s`: while no answer comes; a restart takes that long. The pause is `poll_s`.
    """

    busy_s: float = 600.0
    away_s: float = 60.0
    poll_s: float = 0.2
    default_pause_s: float = 1.0


NO_RETRIES = Retries(busy_s=0.0, away_s=0.0)


@dataclass
class Reachability:
    """Whether a server has ever been reached. One that was never there is not waited for."""

    was_reached: bool = False
    clock: Callable[[], float] = field(default=time.monotonic)


def with_retries(steps: Steps[T], retries: Retries, reachability: Reachability) -> Steps[T]:
    """The same steps, in which each request is repeated within the bounds of `retries`."""
    outcome: Outcome | None = None
    try:
        while True:
            step = steps.send(outcome)
            if isinstance(step, Pause):
                outcome = yield step
            else:
                outcome = yield from _attempts(step, retries if step.retry else NO_RETRIES, reachability)
    except StopIteration as end:
        result: T = end.value
        return result


def _attempts(request: Send, retries: Retries, reachability: Reachability) -> Steps[Outcome | None]:
    """Send a request until an outcome is final; that outcome."""
    started_at = reachability.clock()
    while True:
        outcome = yield request
        if isinstance(outcome, Reply):
            reachability.was_reached = True
            pause_s = read_retry_after(outcome, retries.default_pause_s)
            if outcome.status not in BUSY or reachability.clock() + pause_s >= started_at + retries.busy_s:
                return outcome
        elif outcome is not None:
            reachability.was_reached |= outcome.was_sent
            pause_s = retries.poll_s
            is_over = reachability.clock() + pause_s >= started_at + retries.away_s
            if outcome.is_final or not reachability.was_reached or is_over:
                return outcome
        else:
            return None
        yield Pause(pause_s)


def read_retry_after(reply: Reply, default_s: float) -> float:
    """The seconds of a Retry-After header, which holds a number or a date; `default_s` without a header that can be read."""
    text = reply.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return default_s
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
