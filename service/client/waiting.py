"""Waiting until posted edits are live: a measurement before that would ask for edits that no version has yet."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from service.client.following import UNSETTLED
from service.client.shapes import EditStatusText

WAITING: tuple[EditStatusText, ...] = (*UNSETTLED, "deferred")
LIVE: tuple[EditStatusText, ...] = ("applied", "consolidated")
POLL_S = 0.25


def is_counted_live(edit: Mapping[str, Any]) -> bool:
    """Whether an edit counts as live in a measurement: it is live, and was not published against a refusal of acceptance."""
    return edit["status"] in LIVE and not edit.get("accepted_anyway", False)


def wait_until_live(
    count_waiting: Callable[[], Counter[str]], retrain_is_underway: Callable[[], bool], *, patience_s: float, idle_s: float
) -> Counter[str]:
    """Wait until no edit is unsettled or deferred, at most `patience_s` seconds; the edits that still wait, counted by status.

    `count_waiting` counts waiting edits by status. Deferred edits are waited for only while a retrain is under way or begins
    within `idle_s` seconds: under some settings no retrain is made, and a failed retrain is not repeated at once.
    """
    until, idle_until = time.monotonic() + patience_s, time.monotonic() + idle_s
    while (waiting := count_waiting()) and time.monotonic() < min(until, idle_until):
        if any(waiting[status] for status in UNSETTLED) or retrain_is_underway():
            idle_until = time.monotonic() + idle_s
        time.sleep(POLL_S)
    return waiting
