"""The event log: events with their subject and author, in order of commit. Append-only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.store import tables as t


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event. `data` holds figures and reasons, never prompts or targets."""

    type: str
    author: str
    edit_id: str | None = None
    version: int | None = None
    job_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def write(connection: Connection, entries: Sequence[Event], *, now: datetime) -> None:
    """Append events. Their ids are gapless, because the counter is in the head row, which the transaction then locks."""
    if not entries:
        return
    count = len(entries)
    after = connection.execute(
        sa.update(t.head).values(next_event=t.head.c.next_event + count).returning(t.head.c.next_event)
    ).scalar_one()
    rows = [
        {
            "id": after - count + index,
            "type": event.type,
            "edit_id": event.edit_id,
            "version": event.version,
            "job_id": event.job_id,
            "author": event.author,
            "data": dict(event.data),
            "at": now,
        }
        for index, event in enumerate(entries)
    ]
    connection.execute(sa.insert(t.events), rows)


def read_of_version(connection: Connection, version: int) -> list[Mapping[str, Any]]:
    """The events of a version, oldest first."""
    select = sa.select(t.events).where(t.events.c.version == version).order_by(t.events.c.id)
    return [dict(row) for row in connection.execute(select).mappings()]


def read_page(connection: Connection, *, limit: int, after: int = 0, edit_id: str | None = None) -> list[Mapping[str, Any]]:
    """Events with ids above `after`, oldest first."""
    select = sa.select(t.events).where(t.events.c.id > after).order_by(t.events.c.id).limit(limit)
    if edit_id is not None:
        select = select.where(t.events.c.edit_id == edit_id)
    return [dict(row) for row in connection.execute(select).mappings()]
