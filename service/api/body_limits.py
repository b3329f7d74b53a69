"""The room that request bodies take in memory: each up to its own limit, and all that are in flight up to one of their own.

What a body takes up is counted as it arrives and given back when its request has been answered, since what was read from it is
held as long. The first bytes of every body are free: however many large ones fill the room, small requests pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter

from service.api.problems import UNAVAILABLE, Problem
from service.settings import Limits

SMALL_BYTES = 16_384  # free, and read without a thread; of these, as many connections as there may be take 33 MB
READER = "errata.reader"  # where a request's scope has the limiter of the thread that reads large bodies


class BodyMemory:
    """All bodies in flight. `reader` lets one large one be read at a time: several would only take turns, and memory each."""

    def __init__(self, limits: Limits) -> None:
        self.reader = CapacityLimiter(1)
        self._left = limits.bodies_bytes

    @contextmanager
    def room(self) -> Iterator["BodyReservation"]:
        """Room for one body, given back at the end of the block."""
        room = BodyReservation(self)
        try:
            yield room
        finally:
            self._left += room.taken

    def take(self, more: int) -> None:
        """Take up `more` bytes. Raises Problem if there are not as many left."""
        if more > self._left:
            # The rest of the body is on its way: only a closed connection ends that.
            headers = {"Retry-After": "1", "Connection": "close"}
            raise Problem(UNAVAILABLE, "Too many large requests are being read; send this one again.", headers=headers)
        self._left -= more

    def check(self, length: int) -> None:
        """Raise Problem if a body of this length would not find room now."""
        if length - SMALL_BYTES > self._left:
            self.take(length - SMALL_BYTES)


class BodyReservation:
    """What one body takes up so far."""

    def __init__(self, bodies: BodyMemory) -> None:
        self.taken = 0
        self._bodies = bodies

    def grow(self, length: int) -> None:
        """Have room for a body that is `length` bytes long by now. Raises Problem if there is none."""
        more = max(0, length - SMALL_BYTES) - self.taken
        if more > 0:
            self._bodies.take(more)
            self.taken += more
