"""Waiting for what another thread does a moment later."""

import time
from collections.abc import Callable


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes true within 20 seconds."""
    end = time.monotonic() + 20
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
