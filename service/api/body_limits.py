"""The memory of request bodies: each body has a limit, and all bodies in flight have a common limit.

The bytes of a body are reserved as they arrive and released when its request was answered, because the parsed body is held as
long. The first bytes of every body are free, so small requests pass even while large ones fill the common limit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter

from service.api.problems import UNAVAILABLE, Problem
from service.settings import Limits

SMALL_BYTES = 16_384  # free, and parsed without a thread; at the limit of connections they take 33 MB
READER = "errata.reader"  # key in a request's scope: the limiter of the thread that parses large bodies


class BodyMemory:
    """The memory of all bodies in flight. `reader` admits one large body at a time: parallel parsing would only cost memory."""

    def __init__(self, limits: Limits) -> None:
        self.reader = CapacityLimiter(1)
        self._left = limits.bodies_bytes

    @contextmanager
    def reservation(self) -> Iterator["BodyReservation"]:
        """A reservation for one body, released at the end of the block."""
        reservation = BodyReservation(self)
        try:
            yield reservation
        finally:
            self._left += reservation.reserved

    def reserve(self, more: int) -> None:
        """Reserve `more` bytes. Raises Problem if fewer are left."""
        if more > self._left:
            # The client is sending the rest of the body: only a closed connection stops it.
            headers = {"Retry-After": "1", "Connection": "close"}
            raise Problem(UNAVAILABLE, "Too many large requests are being read; send this one again.", headers=headers)
        self._left -= more

    def check(self, length: int) -> None:
        """Raise Problem if a body of this length could not be reserved now."""
        if length - SMALL_BYTES > self._left:
            self.reserve(length - SMALL_BYTES)


class BodyReservation:
    """The bytes that one body has reserved so far."""

    def __init__(self, bodies: BodyMemory) -> None:
        self.reserved = 0
        self._bodies = bodies

    def grow(self, length: int) -> None:
        """Extend the reservation to a body of `length` bytes. Raises Problem if too few bytes are left."""
        more = max(0, length - SMALL_BYTES) - self.reserved
        if more > 0:
            self._bodies.reserve(more)
            self.reserved += more
