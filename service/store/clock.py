"""The clock of a store. Times that are compared or ordered come from the database, because several processes write them and their
own clocks may differ. On SQLite it is this machine's clock.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import Unavailable

REFRESH_S = 60.0  # seconds between two readings of the database's clock


def read_now(connection: Connection) -> datetime:
    """The time of the database's clock. Read under the head's lock, it is later than every earlier commit."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)


class Clock:
    """The database's clock outside a transaction, without a query each time.

    The time is the last reading plus the time since then by this process' monotonic clock. The clock continues while the
    database is unavailable. Before the first reading it is this machine's clock. `read` queries the database
    and may raise Unavailable.
    """

    def __init__(self, read: Callable[[], datetime]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._reading: tuple[datetime, float] | None = None  # the database's time, and the monotonic time of it
        self._next_read = 0.0

    def __call__(self) -> datetime:
        """The time now."""
        with self._lock:
            is_due = time.monotonic() >= self._next_read
            if is_due:
                self._next_read = time.monotonic() + REFRESH_S  # other threads use the last reading
        if is_due:
            self._refresh()
        with self._lock:
            if self._reading is None:
                return datetime.now(UTC)
            moment, at = self._reading
            return moment + timedelta(seconds=time.monotonic() - at)

    def _refresh(self) -> None:
        before = time.monotonic()
        try:
            moment = self._read()
        except Unavailable:
            return
        with self._lock:
            self._reading = (moment, (before + time.monotonic()) / 2)
