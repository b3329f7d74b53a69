"""Taking a store to another base model: its edits leave the live set in one transaction, and a major retrain on the new base
takes them in again.

Nothing of the old base is computed on the new one. Its versions stay in the history as versions of another base. The new base
begins with a version of its own, which answers as the base does. Knows no model: what an edit may not have on the new base is
asked of `refuse`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy.engine import Connection

from service.domain.arithmetic import Arithmetic
from service.domain.edit import Edit, EditStatus
from service.domain.liveset import LiveSet
from service.domain.version import BASE, Head, Version, VersionStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.refit import read_pending_retractions, read_restored_items
from service.lifecycle.statuses import defer, write_statuses
from service.store import bases, edits, events, heads, jobs, versions
from service.store.edits import StatusChange
from service.store.events import Event

WAITS = "it waits for a retrain on the new base model"
REASON = "the store was taken to another base model"
UNFITTING = "it does not fit the new base model: "
CHANGED = "base.changed"
NOT_LIVE_YET = (EditStatus.QUEUED, EditStatus.APPLYING, EditStatus.DEFERRED)
log = structlog.get_logger("errata.rebase")

Refuse = Callable[[Edit], str | None]  # why the new base cannot hold an edit; None if it can


@dataclass(frozen=True)
class Rebase:
    """How a store came to its base: its first version there, the retrain that takes the edits in (None without edits), and the
    edits as they are now.
    """

    version: int
    base_name: str
    job_id: str | None
    edits: tuple[Edit, ...]


def rebase(context: LifecycleContext, *, name: str, arithmetic: Arithmetic, refuse: Refuse, fence: int, author: str) -> bool:
    """Take the store to the base of `context`, named `name`, which computes with `arithmetic` from then on; return whether the
    store was of another base before.

    Live and deferred edits wait for the retrain that is queued, and those that `refuse` gives a reason for fail with it. Raises
    FenceLost if another worker has taken over.
    """
    fingerprint = context.checkpoints.fingerprint
    with context.store.read() as connection:
        if heads.read(connection).base_fingerprint == fingerprint:
            return False
        known = {edit.id: refuse(edit) for edit in _read_concerned(connection)}
    with context.store.write() as connection:
        head = heads.lock(connection)
        heads.check_fence(connection, fence)
        if head.base_fingerprint == fingerprint:
            return False
        reasons = {edit.id: known[edit.id] if edit.id in known else refuse(edit) for edit in _read_concerned(connection)}
        live_set = versions.read_live_set(connection, head.version)
        version = _insert_version(connection, context, head, fence=fence, author=author)
        bases.change(connection, head, fingerprint=fingerprint, name=name, first=version)
        heads.pin_arithmetic(connection, arithmetic, seen=head.arithmetic)
        changes = _changes(connection, live_set, reasons)
        write_statuses(connection, context, changes, author=author, version=version)
        _cancel_jobs(connection, context)
        job_id = _queue_retrain(connection, context, author)
        event = Event(type=CHANGED, author=author, version=version, job_id=job_id, data={"from": head.base_name, "to": name})
        events.write(connection, [event], now=context.clock())
        crash_point("rebase.before_commit")
    crash_point("rebase.after_commit")
    log.info("rebased", version=version, base=name, edits=len(changes), job=job_id)
    return True


def read_rebase(connection: Connection) -> Rebase | None:
    """How the store came to its base; None if it was made with it."""
    version = bases.read_first_version(connection)
    if not version:
        return None
    written = events.read_of_version(connection, version)
    ids = [event["edit_id"] for event in written if event["edit_id"] is not None]
    job_id = next((event["job_id"] for event in written if event["type"] == CHANGED), None)
    return Rebase(version, heads.read(connection).base_name, job_id, tuple(edits.read_many(connection, ids)))


def _read_concerned(connection: Connection) -> Iterable[Edit]:
    """The edits that the new base has to hold: those that are live or wait to be, and those that a retraction brings back."""
    pending = read_pending_retractions(connection, versions.read_live_set(connection, heads.read(connection).version))
    ids = {item.edit_id for item in read_restored_items(connection, pending)}
    for status in (EditStatus.APPLIED, EditStatus.CONSOLIDATED, *NOT_LIVE_YET):
        ids |= set(edits.read_ids(connection, status))
    return edits.read_many(connection, ids - pending.keys())


def _insert_version(connection: Connection, context: LifecycleContext, head: Head, *, fence: int, author: str) -> int:
    """Make the new base alone the head; return the number of its version."""
    now = context.clock()
    moved = heads.move(connection, head, fence=fence, reason=REASON, author=author, now=now)
    version = Version(
        number=moved.version,
        kind=BASE,
        status=VersionStatus.PUBLISHED,
        parent=head.version,
        digest=None,
        created_at=now,
        author=author,
        reason=REASON,
        pinned=True,
    )
    versions.insert(connection, version, LiveSet(), fence=fence, job_id=None)
    published = Event(type="version.published", author=author, version=moved.version)
    events.write(connection, [published], now=now)
    return moved.version


def _changes(connection: Connection, live_set: LiveSet, reasons: Mapping[str, str | None]) -> list[StatusChange]:
    """Edits that wait for a fit go on waiting for it. An edit whose retraction was requested leaves, and is retracted."""
    pending = read_pending_retractions(connection, live_set)
    waiting = {*edits.read_ids(connection, EditStatus.QUEUED), *edits.read_ids(connection, EditStatus.APPLYING)}
    failed = [edit_id for edit_id, reason in reasons.items() if reason is not None]
    deferred = [edit_id for edit_id, reason in reasons.items() if reason is None and edit_id not in waiting]
    return [
        *(defer(edit_id, WAITS) for edit_id in [*deferred, *pending]),
        *(StatusChange(edit_id=edit_id, status=EditStatus.FAILED, error=f"{UNFITTING}{reasons[edit_id]}") for edit_id in failed),
    ]


def _cancel_jobs(connection: Connection, context: LifecycleContext) -> None:
    """Cancel what would go on from tensors of the old base. Waiting edits are claimed again by their job, on the new head."""
    for kind in ("refit", "retrain"):
        while (job := jobs.find_active(connection, kind, brief=True)) is not None:
            jobs.append_to_log(connection, job.id, REASON, context.clock())
            jobs.write(connection, job.id, status="cancelled", error=REASON, finished_at=context.clock(), retry_at=None)


def _queue_retrain(connection: Connection, context: LifecycleContext, author: str) -> str | None:
    if not edits.read_ids(connection, EditStatus.DEFERRED):
        return None
    job = jobs.insert(connection, "retrain", mode="major", reason=REASON, author=author, now=context.clock())
    return job.id
