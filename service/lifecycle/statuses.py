"""The statuses of edits: what a publication makes of them, and the one place that writes them with their events."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from service.domain.edit import EditStatus
from service.domain.liveset import Carrier, LiveItem, LiveSet
from service.lifecycle.context import LifecycleContext
from service.store import edits, events
from service.store.edits import StatusChange
from service.store.events import Event

RETRACTION_WINS = (EditStatus.SUPERSEDED, EditStatus.ROLLED_BACK, EditStatus.DEFERRED, EditStatus.QUEUED)


def write_statuses(
    connection: Connection,
    context: LifecycleContext,
    changes: Sequence[StatusChange],
    *,
    author: str,
    version: int | None = None,
    job_id: str | None = None,
) -> None:
    """Write changes of edits with their events. An edit that leaves the live set and was asked to be taken back counts as
    retracted.
    """
    now = context.clock()
    leaving = [change.edit_id for change in changes if change.status in RETRACTION_WINS]
    asked = edits.find_retracted(connection, leaving) if leaving else set()
    written = [
        StatusChange(edit_id=change.edit_id, status=EditStatus.RETRACTED)
        if change.edit_id in asked and change.status in RETRACTION_WINS
        else _with_version(change, version)
        for change in changes
    ]
    edits.change_statuses(connection, written, now=now)
    happened = [
        Event(
            type=f"edit.{change.status}",
            edit_id=change.edit_id,
            version=version,
            job_id=job_id,
            author=author,
            data={} if change.error is None else {"reason": change.error},
        )
        for change in written
    ]
    events.write(connection, happened, now=now)


def changes_of_live_sets(
    before: LiveSet, after: LiveSet, *, superseded: Mapping[str, str], reports: Mapping[str, Mapping[str, Any]]
) -> list[StatusChange]:
    """What a publication makes of the edits it holds, read from the live sets, and of those it supersedes ({old id: new id})."""
    older = {new: old for old, new in superseded.items()}
    changes = [
        StatusChange(edit_id=old, status=EditStatus.SUPERSEDED, superseded_by=new)
        for old, new in superseded.items()
        if after.get(old) is None or not after.get(old).is_live  # type: ignore[union-attr]
    ]
    standing = before.by_id
    for item in [item for item in after.items if standing.get(item.edit_id) is not item or item.edit_id in reports]:
        if not item.is_live:
            continue
        # A retrain has a report of every edit: to write all down for the few that it moved would hold up every other writer.
        is_told = item.edit_id in reports and item.carrier is Carrier.WINDOW
        if _was_live(before, item) and not is_told and item.edit_id not in older:
            continue
        changes.append(
            StatusChange(
                edit_id=item.edit_id,
                status=EditStatus.APPLIED if item.carrier is Carrier.WINDOW else EditStatus.CONSOLIDATED,
                supersedes=older.get(item.edit_id),
                report=reports.get(item.edit_id),
            )
        )
    return changes


def _was_live(before: LiveSet, item: LiveItem) -> bool:
    """Whether an item was live before with the same carrier, so that its row says so already."""
    was = before.get(item.edit_id)
    return was is not None and was.is_live and was.carrier is item.carrier


def _with_version(change: StatusChange, version: int | None) -> StatusChange:
    return StatusChange(**{**change.__dict__, "version": version}) if change.status.is_live else change
