"""The statuses of edits: the changes that a publication implies, and the one place that writes changes with their events."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from service.domain.deferral import Deferral
from service.domain.edit import EditStatus
from service.domain.liveset import Carrier, LiveItem, LiveSet
from service.lifecycle.context import LifecycleContext
from service.store import edits, events
from service.store.database import after_commit
from service.store.edits import StatusChange
from service.store.events import Event

log = structlog.get_logger("errata.edits")
YIELDS_TO_RETRACTION = (EditStatus.SUPERSEDED, EditStatus.ROLLED_BACK, EditStatus.DEFERRED, EditStatus.QUEUED)


def defer(edit_id: str, reason: str, *, tried_on: int | None = None, figures: Mapping[str, Any] | None = None) -> StatusChange:
    """The change of an edit that waits for a retrain. `tried_on` is the version that a fit with the edit began on; without one
    nothing tried it.
    """
    deferral = Deferral(reason=reason, figures=figures or {}, tried_on=tried_on)
    return StatusChange(edit_id=edit_id, status=EditStatus.DEFERRED, error=reason, deferral=deferral)


def write_statuses(
    connection: Connection,
    context: LifecycleContext,
    changes: Sequence[StatusChange],
    *,
    author: str,
    version: int | None = None,
    job_id: str | None = None,
) -> None:
    """Write changes of edits with their events. An edit that leaves the live set after its retraction was requested becomes
    `retracted`. Each edit that is deferred is logged once the transaction is committed.
    """
    now = context.clock()
    leaving_ids = [change.edit_id for change in changes if change.status in YIELDS_TO_RETRACTION]
    retracted_ids = edits.find_retracted(connection, leaving_ids) if leaving_ids else set()
    final_changes = [
        StatusChange(edit_id=change.edit_id, status=EditStatus.RETRACTED)
        if change.edit_id in retracted_ids and change.status in YIELDS_TO_RETRACTION
        else _with_version(change, version)
        for change in changes
    ]
    final_changes = _with_tries(connection, final_changes, now)
    edits.change_statuses(connection, final_changes, now=now)
    new_events = [
        Event(
            type=f"edit.{change.status}",
            edit_id=change.edit_id,
            version=version,
            job_id=job_id,
            author=author,
            data=_event_data(change),
        )
        for change in final_changes
    ]
    events.write(connection, new_events, now=now)
    deferred = [(change.edit_id, change.deferral) for change in final_changes if change.deferral is not None]
    if deferred:
        after_commit(connection, lambda: _log_deferred(deferred))


def changes_of_live_sets(
    before: LiveSet,
    after: LiveSet,
    *,
    superseded: Mapping[str, str],
    reports: Mapping[str, Mapping[str, Any]],
    accepted_anyway: bool | None = None,
) -> list[StatusChange]:
    """The changes of edits that a publication implies, from the live sets before and after it. `superseded` maps the id of each
    superseded edit to its successor's id. `accepted_anyway` says how the edits were accepted that were not live before; None: as
    they were when they were live.
    """
    predecessors = {new: old for old, new in superseded.items()}
    changes = [
        StatusChange(edit_id=old, status=EditStatus.SUPERSEDED, superseded_by=new)
        for old, new in superseded.items()
        if after.get(old) is None or not after.get(old).is_live  # type: ignore[union-attr]
    ]
    items_before = before.by_id
    for item in [item for item in after.items if items_before.get(item.edit_id) is not item or item.edit_id in reports]:
        if not item.is_live:
            continue
        # A retrain reports every edit, and moves few. Writing all reports would hold up every other writer.
        has_report = item.edit_id in reports and item.carrier is Carrier.WINDOW
        if _was_live(before, item) and not has_report and item.edit_id not in predecessors:
            continue
        changes.append(
            StatusChange(
                edit_id=item.edit_id,
                status=EditStatus.APPLIED if item.carrier is Carrier.WINDOW else EditStatus.CONSOLIDATED,
                supersedes=predecessors.get(item.edit_id),
                report=reports.get(item.edit_id),
                accepted_anyway=None if item.edit_id in before.ids else accepted_anyway,
            )
        )
    return changes


def _was_live(before: LiveSet, item: LiveItem) -> bool:
    """Whether an item was live before with the same carrier, so that its row is right already."""
    item_before = before.get(item.edit_id)
    return item_before is not None and item_before.is_live and item_before.carrier is item.carrier


def _with_tries(connection: Connection, changes: Sequence[StatusChange], now: datetime) -> list[StatusChange]:
    """The changes, each deferral with the tries before it."""
    before = edits.read_deferrals(connection, [change.edit_id for change in changes if change.deferral is not None])
    return [
        change if change.deferral is None else replace(change, deferral=change.deferral.after(before.get(change.edit_id), now))
        for change in changes
    ]


def _event_data(change: StatusChange) -> dict[str, Any]:
    accepted = {"accepted": "anyway"} if change.accepted_anyway else {}
    figures = {"figures": dict(change.deferral.figures)} if change.deferral is not None and change.deferral.figures else {}
    return accepted | figures | ({} if change.error is None else {"reason": change.error})


def _log_deferred(deferred: Sequence[tuple[str, Deferral]]) -> None:
    for edit_id, deferral in deferred:
        log.info(
            "deferred",
            edit=edit_id,
            reason=deferral.reason,
            figures=dict(deferral.figures),
            tried_on_version=deferral.tried_on,
            tries=deferral.tries,
        )


def _with_version(change: StatusChange, version: int | None) -> StatusChange:
    return StatusChange(**{**change.__dict__, "version": version}) if change.status.is_live else change
