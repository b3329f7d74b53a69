"""The right of a worker to act."""

from collections.abc import Callable
from dataclasses import dataclass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Lease:
    """The right of a worker to act: its fence, and whether the worker should stop because the process ends or the lease was
    lost.
    """

    fence: int
    is_over: Callable[[], bool] = _never
