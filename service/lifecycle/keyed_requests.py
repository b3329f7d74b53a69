"""Requests that queue one row, and are answered once: a repetition under the same idempotency key gets the row as it is now."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy.engine import Connection

from service.domain.version import Head
from service.lifecycle.crash_points import crash_point
from service.store import heads, idempotency
from service.store.clock import read_now
from service.store.database import Store
from service.store.idempotency import KeyedRequest


class Queued(Protocol):
    """A row with an id: a job, an evaluation."""

    @property
    def id(self) -> str:
        """The id of the row."""


Row = TypeVar("Row", bound=Queued)


def answer_once(
    store: Store,
    request: KeyedRequest,
    name: str,
    *,
    read: Callable[[Connection, str], Row],
    queue: Callable[[Connection, Head, datetime], Row],
    now: datetime | None = None,
) -> Row:
    """The row that `queue(connection, head, now)` writes, or the row of an earlier request under the same key, by `read`.

    Both are in one transaction under the head's lock: so the version that is asked for is not collected meanwhile. `name` is the
    row's name in the stored answer. Raises KeyReused for a key that another request used, and what `queue` raises.
    """
    with store.write() as connection:
        head = heads.lock(connection)
        now = now or read_now(connection)
        if (answer := idempotency.recall(connection, request)) is not None:
            return read(connection, answer[name])
        row = queue(connection, head, now)
        idempotency.remember(connection, request, {name: row.id}, now=now)
        crash_point("request.before_commit")
    crash_point("request.after_commit")
    return row
