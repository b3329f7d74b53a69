"""Waiting until a server carries what was posted to it: what is measured before that holds edits that no version has yet."""

import time
from collections import Counter
from collections.abc import Callable

UNSETTLED = ("queued", "applying")
WAITING = (*UNSETTLED, "deferred")
LIVE = ("applied", "consolidated")
LOOK_S = 0.25


def wait_until_live(
    waiting: Callable[[], Counter[str]], retrain_is_underway: Callable[[], bool], *, patience_s: float, idle_s: float
) -> Counter[str]:
    """Wait until no edit waits for its turn or for a retrain, and return those that still do, by status.

    `waiting` counts edits by status. Deferred ones that no retrain comes for within `idle_s` are not waited for: under some
    settings none is made, and one that failed stays failed.
    """
    until, patience = time.monotonic() + patience_s, time.monotonic() + idle_s
    while (found := waiting()) and time.monotonic() < min(until, patience):
        if any(found[status] for status in UNSETTLED) or retrain_is_underway():
            patience = time.monotonic() + idle_s
        time.sleep(LOOK_S)
    return found
