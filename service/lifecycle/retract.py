"""Retracting an edit. An edit that is not live is retracted at once, also during its fit: the fit stops and is never published.
A live edit is marked here and removed by the worker's refit; so is an edit that a fit was trained on and lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from service.domain.edit import Edit, EditStatus
from service.domain.errors import Conflict
from service.domain.liveset import Role
from service.store import edits, events, heads, jobs, versions
from service.store.clock import read_now
from service.store.database import Store
from service.store.edits import StatusChange
from service.store.events import Event

IMMEDIATE = (EditStatus.QUEUED, EditStatus.APPLYING, EditStatus.DEFERRED, EditStatus.ROLLED_BACK)
NOT_RETRACTABLE = (EditStatus.SUPERSEDED, EditStatus.FAILED)


@dataclass(frozen=True)
class Retraction:
    """The edit as it is now, and whether its retraction is done or only requested."""

    edit: Edit
    is_done: bool


def retract(
    store: Store,
    edit_id: str,
    *,
    author: str,
    restore_previous: bool = False,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> Retraction:
    """Retract an edit. With `restore_previous` the edit that it superseded becomes live again.

    Raises NotFound, or Conflict for a superseded edit and for a failed one that no fit was trained on. A second call changes
    nothing.
    """
    with store.write() as connection:
        heads.lock(connection)
        now = now or read_now(connection)
        edit = edits.get(connection, edit_id)
        if edit.status is EditStatus.RETRACTED:
            return Retraction(edit, True)
        was_lost = _was_lost(connection, edit_id)
        if edit.status in NOT_RETRACTABLE and not (was_lost and edit.status is EditStatus.FAILED):
            raise Conflict(f"an edit that is {edit.status} cannot be retracted: nothing of it is live", field="id")
        if edits.find_retracted(connection, [edit_id]):
            return Retraction(edit, False)
        edits.request_retraction(connection, [edit_id], restore_previous=restore_previous, author=author, now=now)
        is_immediate = edit.status in (*IMMEDIATE, *NOT_RETRACTABLE)
        if is_immediate:
            edits.change_statuses(connection, [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED)], now=now)
        if (edit.status.is_live or was_lost) and jobs.find_active(connection, "refit", "queued", brief=True) is None:
            jobs.insert(connection, "refit", edit_ids=[edit_id], reason="retraction", author=author, now=now)
        event_type = "edit.retracted" if is_immediate else "edit.retraction_asked"
        events.write(connection, [Event(type=event_type, edit_id=edit_id, author=author)], now=now)
        result = Retraction(edits.get(connection, edit_id), is_immediate)
    if ring is not None:
        ring(edit_id)
    return result


def _was_lost(connection: Connection, edit_id: str) -> bool:
    """Whether the head was trained on the edit and lost it."""
    item = versions.read_live_set(connection, heads.read(connection).version).get(edit_id)
    return item is not None and item.role is Role.LOST
