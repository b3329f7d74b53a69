"""What the job of a retrain trains on, as its row holds it: the snapshot, the mode and the start. And how the job ends without
a publication.

All that a repetition needs is in the row or follows from it, so that a retrain that was killed and claimed again gives the same
bytes.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.engine import Connection

from service.domain import cadence, liveset
from service.domain.cadence import Mode
from service.domain.edit import EditRequest, EditStatus
from service.domain.errors import Corrupt, Gone, NotFound, Unavailable
from service.domain.liveset import LiveItem, LiveSet
from service.editors.registry import find_method, is_consolidating
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.context import EditingContext, LifecycleContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.fit_inputs import seed_of
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay
from service.lifecycle.job_claims import claim_job, is_worn_out, sentences_of
from service.lifecycle.lease import Lease
from service.lifecycle.retrain.newcomers import note_refusal
from service.lifecycle.retrain.outcomes import NotAccepted
from service.lifecycle.retrain.retries import end_failed
from service.lm.overlay import EMPTY, Overlay
from service.store import edits, events, heads, jobs, versions
from service.store.events import Event
from service.store.jobs import Job

WAITING = "waiting until all neutral sentences are there"
RETRAINABLE = (EditStatus.APPLIED, EditStatus.CONSOLIDATED, EditStatus.DEFERRED)


@dataclass(frozen=True)
class RetrainPlan:
    """One retrain to do. `start` holds the tensors that a minor retrain starts from, and `start_set` the live set of their
    version. `method` is the name of a consolidating method.
    """

    method: str
    mode: Mode
    items: tuple[LiveItem, ...]
    start: Overlay = EMPTY
    start_set: LiveSet = field(default_factory=LiveSet)


def claim(context: EditingContext, lease: Lease) -> Job | None:
    """Claim the running or queued retrain, unless its next attempt is not due yet. A retrain that a worker left is repeated as
    it was, if it can still be published.

    A retrain waits until all neutral sentences are there: what it costs elsewhere stays in the tensors until the next major one.
    """
    has_all = context.editors.has_all
    requests_ahead = _read_requests_ahead(context) if has_all else {}
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "retrain")
        if job is None:
            return None
        now = context.clock()
        if job.cancel_asked_at is not None:
            _end_cancelled(connection, context, job)
            return jobs.get(connection, job.id)
        if job.retry_at is not None and now < job.retry_at:
            return None
        if not has_all:
            _note_waiting(connection, job, now)
            return None
        if job.status == "queued":
            return _write_snapshot(connection, context, lease, job, requests_ahead)
        if is_worn_out(job, context.settings.claims):
            end_failed(connection, context, job, "it ended the process again and again")
            return jobs.get(connection, job.id)
        jobs.append_to_log(connection, job.id, "taken up again", now)
        job = claim_job(connection, job, fence=lease.fence, now=context.clock(), progress=0.0, stage=None, retry_at=None)
        is_trainable = edits.check_all_have_status(connection, job.edit_ids, RETRAINABLE)
        is_repeatable = is_trainable and _installed_method(job) is not None and _can_start(connection, context, job)
        return job if is_repeatable else _write_snapshot(connection, context, lease, job, requests_ahead)


def replace_snapshot(context: EditingContext, lease: Lease, without: Collection[str] = ()) -> Job | None:
    """Give the running job a new snapshot, `without` some edits: deferred ones, or live ones that stay in the window."""
    requests_ahead = _read_requests_ahead(context)
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "retrain", "running")
        return None if job is None else _write_snapshot(connection, context, lease, job, requests_ahead, without)


def change_to_major(context: LifecycleContext, lease: Lease, reason: str) -> None:
    """Make the running job a major retrain from its next snapshot on."""
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "retrain", "running")
        if job is not None:
            jobs.append_to_log(connection, job.id, reason, context.clock())
            jobs.write(connection, job.id, mode="major")


def read_plan(context: LifecycleContext, job: Job) -> RetrainPlan:
    """What a claimed job has to do."""
    method = job.method or context.settings.consolidating_method
    with context.store.read() as connection:
        items = tuple(edits.read_items(connection, job.edit_ids))
        if job.mode != "minor":
            return RetrainPlan(method, "major", items)
        assert job.parent is not None
        version, start_set = versions.get(connection, job.parent), versions.read_live_set(connection, job.parent)
    start = Overlay(load_head_overlay(context, version).tensors, None)
    return RetrainPlan(method, "minor", tuple(_item_at_start(start_set, item) for item in items), start, start_set)


def is_publishable(context: LifecycleContext, job: Job, plan: RetrainPlan, head: HeadSnapshot) -> bool:
    """Whether the trained tensors may be published on a head: no edit of the snapshot was retracted; each is live, deferred, or
    superseded by an edit that the head answers; and the head still has the tensors that a minor retrain started from.
    """
    superseded = liveset.find_superseded(plan.items, head.live_set)
    required = [edit_id for edit_id in job.edit_ids if edit_id not in superseded]
    with context.store.read() as connection:
        if not edits.check_all_have_status(connection, required, RETRAINABLE):
            return False
        if not edits.check_all_have_status(connection, superseded, (*RETRAINABLE, EditStatus.SUPERSEDED)):
            return False
    return plan.mode == "major" or load_head_overlay(context, head.version).tensors_digest == plan.start.tensors_digest


def cancel_check(context: LifecycleContext, job: Job) -> Callable[[], bool]:
    """A function that returns whether the cancellation of the job was requested."""

    def is_cancelled() -> bool:
        with context.store.read() as connection:
            return jobs.is_cancel_requested(connection, job.id)

    return is_cancelled


def end_if_cancelled(context: LifecycleContext, lease: Lease) -> bool:
    """End the running retrain if its cancellation was requested; return whether it was."""
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "retrain", "running")
        if job is None or job.cancel_asked_at is None:
            return False
        _end_cancelled(connection, context, job)
    return True


def fail(context: LifecycleContext, lease: Lease, error: str) -> None:
    """Fail the running retrain with a reason."""
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "retrain", "running")
        if job is not None:
            end_failed(connection, context, job, error)


def refuse(context: LifecycleContext, lease: Lease, job: Job, refused: NotAccepted) -> None:
    """Fail a retrain that was not accepted, with the reasons."""
    data = {"reasons": list(refused.reasons), "figures": dict(refused.figures)}
    with fenced_write(context, lease.fence) as (connection, _):
        end_failed(connection, context, job, "; ".join(refused.reasons))
        events.write(
            connection, [Event(type="candidate.refused", job_id=job.id, author=job.author, data=data)], now=context.clock()
        )
        note_refusal(connection, context, job, job.edit_ids, refused.reasons, refused.figures)


def append_log(context: LifecycleContext, job: Job, message: str) -> None:
    """Add a line to a job's log, if the database is there. A missing line is no reason to train again."""
    with contextlib.suppress(Unavailable), context.store.write() as connection:
        jobs.append_to_log(connection, job.id, message, context.clock())


def _read_requests_ahead(context: LifecycleContext) -> Mapping[str, EditRequest]:
    """Read what a snapshot would train on, before the lock: to read 100,000 edits takes seconds."""
    with context.store.read() as connection:
        job = jobs.find_active(connection, "retrain", brief=True)
        if job is None or job.cancel_asked_at is not None or (job.retry_at is not None and context.clock() < job.retry_at):
            return {}
        return edits.read_requests_by_id(connection, [item.edit_id for item in read_snapshot(connection)])


def _note_waiting(connection: Connection, job: Job, now: datetime) -> None:
    """Write into a job, once, that it waits for neutral sentences."""
    if job.stage != WAITING:
        jobs.append_to_log(connection, job.id, WAITING, now)
        jobs.write(connection, job.id, stage=WAITING)


def _write_snapshot(
    connection: Connection,
    context: EditingContext,
    lease: Lease,
    job: Job,
    requests_ahead: Mapping[str, EditRequest],
    without: Collection[str] = (),
) -> Job:
    """Write a new snapshot into a job's row. The requests of edits never change, so only those of later edits are read under
    the lock.
    """
    head = heads.read(connection)
    live_set = versions.read_live_set(connection, head.version)
    items = read_snapshot(connection, live_set, without=without)
    mode = _mode(connection, context, job, live_set) if items else "major"
    ids = [item.edit_id for item in items]
    now = context.clock()
    requests_by_id = {
        **requests_ahead,
        **edits.read_requests_by_id(connection, [edit_id for edit_id in ids if edit_id not in requests_ahead]),
    }
    requests = [requests_by_id[edit_id] for edit_id in ids]
    entering = [requests_by_id[item.edit_id] for item in items if not item.is_in_tensors]
    method = _installed_method(job) or _method_of(entering, context.settings.consolidating_method)
    message = f"{mode} retrain by {find_method(method).title}: snapshot of {len(ids)} edits, of version {head.version}"
    jobs.append_to_log(connection, job.id, message, now)
    values = {"parent": head.version, "method": method, "mode": mode, "seed": seed_of(requests), "stage": None}
    sentences = sentences_of(context, job)
    return claim_job(connection, job, fence=lease.fence, now=context.clock(), edit_ids=ids, neutral_sentences=sentences, **values)


def _installed_method(job: Job) -> str | None:
    """The method that a request or an earlier snapshot chose for a job, unless it was uninstalled since."""
    return job.method if job.method is not None and is_consolidating(job.method) else None


def _method_of(entering: Sequence[EditRequest], default: str) -> str:
    """The consolidating method that the latest of the edits names that enter the tensors. Edits in the tensors had their wish."""
    named = [request.method for request in entering if is_consolidating(request.method)]
    return named[-1] if named else default


def _mode(connection: Connection, context: LifecycleContext, job: Job, live_set: LiveSet) -> Mode:
    if job.mode is None:
        return cadence.choose_mode(read_cadence_inputs(connection, context), context.settings.cadence)
    return "minor" if job.mode == "minor" and live_set.in_tensors else "major"


def _can_start(connection: Connection, context: LifecycleContext, job: Job) -> bool:
    """Whether the version that a minor retrain starts from can still be loaded."""
    if job.mode != "minor" or job.parent is None:
        return True
    try:
        context.checkpoints.get_overlay(versions.get(connection, job.parent))
    except (NotFound, Gone, Corrupt):
        return False
    return True


def _item_at_start(start_set: LiveSet, item: LiveItem) -> LiveItem:
    """An edit as a minor retrain finds it: with its item in the start set if it was live there."""
    item_before = start_set.get(item.edit_id)
    return item_before if item_before is not None and item_before.is_live else item


def _end_cancelled(connection: Connection, context: LifecycleContext, job: Job) -> None:
    now = context.clock()
    jobs.finish_cancelled(connection, job.id, now=now)
    event = Event(type="retrain.cancelled", job_id=job.id, author=job.cancelled_by or job.author)
    events.write(connection, [event], now=now)


def read_snapshot(
    connection: Connection, live_set: LiveSet | None = None, *, without: Collection[str] = ()
) -> tuple[LiveItem, ...]:
    """What a retrain that begins now trains on: the live set and the deferred edits, the latest of each conflict key. Retracted
    edits are left out, and so are the edits in `without`.
    """
    if live_set is None:
        live_set = versions.read_live_set(connection, heads.read(connection).version)
    deferred_ids = edits.read_ids(connection, EditStatus.DEFERRED)
    known = (*live_set.live, *edits.read_items(connection, deferred_ids))
    candidates = [item for item in known if item.edit_id not in without]
    retracted_ids = edits.find_retracted(connection, [item.edit_id for item in candidates])
    return liveset.latest_per_key(item for item in candidates if item.edit_id not in retracted_ids)
