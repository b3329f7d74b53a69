"""What is known of a database that does not answer: one caller at a time finds out whether it does again, all others are told at
once. Otherwise each of them would hold a thread until its own time is over, and soon there would be no thread for anything else.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import Unavailable

RETRY_S = 1.0  # between two who find out


class DatabaseTimeout(Unavailable):
    """The database did not answer in its time. What was asked of it may have been done, or may yet be done."""


class Outage:
    """Begins with a Silence and ends with an answer, whoever was given it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasts = False
        self._trying: int | None = None  # the thread that finds out
        self._next_try = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Ask the database in this block. Raises Silence as `check` does."""
        self.check()
        try:
            yield
        except DatabaseTimeout:
            self._left(answered=False)
            raise
        except BaseException:
            self._left(answered=True)
            raise
        self._left(answered=True)

    def check(self) -> None:
        """Raise Silence at once if the database is away and somebody else finds out, or it is too soon. In an attempt it is for
        those who had to wait before they could ask.
        """
        me = threading.get_ident()
        with self._lock:
            if not self._lasts or self._trying == me:
                return
            if self._trying is None and time.monotonic() >= self._next_try:
                self._trying = me
                return
        raise DatabaseTimeout("The database does not answer.", retry_after_s=RETRY_S)

    def peek(self) -> None:
        """Raise Silence as `check` does, and take nothing upon oneself: for those who have something to wait for first."""
        with self._lock:
            is_others = self._trying not in (None, threading.get_ident())
            if not self._lasts or not (is_others or time.monotonic() < self._next_try):
                return
        raise DatabaseTimeout("The database does not answer.", retry_after_s=RETRY_S)

    def _left(self, *, answered: bool) -> None:
        with self._lock:
            self._lasts = not answered
            self._next_try = time.monotonic() + RETRY_S
            if answered or self._trying == threading.get_ident():
                self._trying = None
