"""Taking an edit back. What is not live goes at once, also while it is fitted: that fit then stops, and nothing of it is ever
published. What is live is noted here and taken out by the worker's refit, and so is what the model may have learned of an edit
that a fit lost.
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

AT_ONCE = (EditStatus.QUEUED, EditStatus.APPLYING, EditStatus.DEFERRED, EditStatus.ROLLED_BACK)
NEVER = (EditStatus.SUPERSEDED, EditStatus.FAILED)


@dataclass(frozen=True)
class Retraction:
    """What became of the wish: `edit` as it stands, and whether it is taken back already or only asked to be."""

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
    """Take an edit back; with `restore_previous` the edit that it superseded becomes live again.

    Raises NotFound, or Conflict for an edit that is superseded, or that failed and nothing was trained on. Doing it twice is the
    same as once.
    """
    with store.write() as connection:
        heads.lock(connection)
        now = now or read_now(connection)
        edit = edits.get(connection, edit_id)
        if edit.status is EditStatus.RETRACTED:
            return Retraction(edit, True)
        was_lost = _was_lost(connection, edit_id)
        if edit.status in NEVER and not (was_lost and edit.status is EditStatus.FAILED):
            raise Conflict(f"an edit that is {edit.status} cannot be retracted: nothing of it is live", field="id")
        if edits.find_retracted(connection, [edit_id]):
            return Retraction(edit, False)
        edits.request_retraction(connection, [edit_id], restore_previous=restore_previous, author=author, now=now)
        at_once = edit.status in (*AT_ONCE, *NEVER)
        if at_once:
            edits.change_statuses(connection, [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED)], now=now)
        if (edit.status.is_live or was_lost) and jobs.find_active(connection, "refit", "queued", brief=True) is None:
            jobs.insert(connection, "refit", edit_ids=[edit_id], reason="retraction", author=author, now=now)
        happened = "edit.retracted" if at_once else "edit.retraction_asked"
        events.write(connection, [Event(type=happened, edit_id=edit_id, author=author)], now=now)
        result = Retraction(edits.get(connection, edit_id), at_once)
    if ring is not None:
        ring(edit_id)
    return result


def _was_lost(connection: Connection, edit_id: str) -> bool:
    """Whether the head was trained on an edit that its fit lost."""
    item = versions.read_live_set(connection, heads.read(connection).version).get(edit_id)
    return item is not None and item.role is Role.LOST
