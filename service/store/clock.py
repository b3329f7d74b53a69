"""The one clock of a store: moments that are compared or ordered come from the database, because several processes write them and
their own clocks need not agree. On SQLite it is this machine's.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import Unavailable

REFRESH_S = 60.0  # how long the database's clock is gone on with before it is looked at again


def read_now(connection: Connection) -> datetime:
    """This moment by the database's clock. Taken under the head's lock it is later than all that was committed before."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    found: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return found.astimezone(UTC)


class Clock:
    """The same where there is no transaction, without asking each time: the last look, and what has passed since by the steady
    clock of this process. While the database is away it goes on; before the first look it is this machine's.

    `look` asks the database, and may raise Unavailable.
    """

    def __init__(self, look: Callable[[], datetime]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._seen: tuple[datetime, float] | None = None
        self._look_at = 0.0

    def __call__(self) -> datetime:
        """This moment."""
        with self._lock:
            is_due = time.monotonic() >= self._look_at
            if is_due:
                self._look_at = time.monotonic() + REFRESH_S  # the others go on with what is known
        if is_due:
            self._agree()
        with self._lock:
            if self._seen is None:
                return datetime.now(UTC)
            moment, at = self._seen
            return moment + timedelta(seconds=time.monotonic() - at)

    def _agree(self) -> None:
        before = time.monotonic()
        try:
            found = self._look()
        except Unavailable:
            return
        with self._lock:
            self._seen = (found, (before + time.monotonic()) / 2)
