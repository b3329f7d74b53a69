"""A circuit breaker for a database that does not answer. One caller at a time probes it; all other callers fail at once.

Without it every caller would hold a thread until its own timeout, and soon no thread would be left for other work.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import Unavailable

RETRY_S = 1.0  # seconds between two probes


class DatabaseTimeout(Unavailable):
    """The database did not answer in time. The statement may have taken effect, or may yet take effect."""


class Outage:
    """An outage begins with a DatabaseTimeout and ends with any answer of the database to any caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_active = False
        self._prober: int | None = None  # the thread that probes the database
        self._next_probe = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Use the database in this block. Raises DatabaseTimeout as `check` does."""
        self.check()
        try:
            yield
        except DatabaseTimeout:
            self._end_attempt(has_answered=False)
            raise
        except BaseException:
            self._end_attempt(has_answered=True)
            raise
        self._end_attempt(has_answered=True)

    def check(self) -> None:
        """In an outage, become the prober, or raise DatabaseTimeout if another thread probes or the next probe is not due.

        Within an attempt it is called again after a wait, because an outage may have begun meanwhile.
        """
        thread = threading.get_ident()
        with self._lock:
            if not self._is_active or self._prober == thread:
                return
            if self._prober is None and time.monotonic() >= self._next_probe:
                self._prober = thread
                return
        raise DatabaseTimeout("The database does not answer.", retry_after_s=RETRY_S)

    def peek(self) -> None:
        """Raise DatabaseTimeout as `check` does, without becoming the prober. For callers that have to wait first."""
        with self._lock:
            is_probed_elsewhere = self._prober not in (None, threading.get_ident())
            if not self._is_active or not (is_probed_elsewhere or time.monotonic() < self._next_probe):
                return
        raise DatabaseTimeout("The database does not answer.", retry_after_s=RETRY_S)

    def _end_attempt(self, *, has_answered: bool) -> None:
        with self._lock:
            self._is_active = not has_answered
            self._next_probe = time.monotonic() + RETRY_S
            if has_answered or self._prober == threading.get_ident():
                self._prober = None
