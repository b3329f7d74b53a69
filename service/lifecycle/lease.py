"""A worker's right to act."""

from collections.abc import Callable
from dataclasses import dataclass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Lease:
    """A worker's right to act: its fence, and whether it should stop (the process ends, or the lease was lost)."""

    fence: int
    is_over: Callable[[], bool] = _never
