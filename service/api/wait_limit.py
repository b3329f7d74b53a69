"""A limit on calls that wait for an outcome, in total and by client address. A call over the limit is answered at once.

A waiting call costs a connection, a place among the requests in flight, and a read of the rows now and then. Its request takes
effect without the wait too; only the answer has less.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request


class WaitLimit:
    """Places for waiting calls. Used from the event loop alone."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total, self._per_address = total, per_address
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[bool]:
        """Take a place while the block runs. False if none is left, in total or for this address."""
        if self._by_address.total() >= self._total or self._by_address[address] >= self._per_address:
            yield False
            return
        self._by_address[address] += 1
        try:
            yield True
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


async def read_address(request: Request) -> str:
    """The address of a request's client; behind a proxy, that of the proxy."""
    return request.client.host if request.client is not None else ""


Address = Annotated[str, Depends(read_address)]
