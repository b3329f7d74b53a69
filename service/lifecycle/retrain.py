"""The major retrain: LocFT-BF from the base over a snapshot of the live set, beside the head, while edits go on being applied.

What arrived meanwhile becomes the new window, fitted by BaFT on the new tensors; so does what the retrain lost. The result
counts only if every edit of the snapshot is still wanted: otherwise it is trained again, never published, so that the tensors
of a published retrain never saw an edit that had been taken back.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from service.domain import cadence, gate, liveset
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, Stale
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import VersionKind
from service.editors.protocol import Fitted
from service.lifecycle.faults import point
from service.lifecycle.parts import Parts
from service.lifecycle.publish import Candidate, live_changes, publish
from service.lifecycle.refit import coming_back, going
from service.lifecycle.settings import SERVICE
from service.lifecycle.standing import snapshot, standing_of
from service.lifecycle.work import Standpoint, Turn, Watch, items_of, known_edits, scores_of, seed_of, standpoint
from service.lm.overlay import EMPTY, Overlay
from service.store import edits, events, heads, jobs, versions
from service.store.edits import Change
from service.store.events import Event
from service.store.heads import FenceLost
from service.store.jobs import Job
from service.store.session import Store

NOT_HELD = "neither the retrain nor BaFT on top of it took this edit"
LOST = "it was lost when the window was fitted on the new tensors; it waits for the next retrain"


class Pressed:
    """Says that a retrain lost too often to edits: while it is set, edits are accepted but not applied."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask applying to pause."""
        self._event.set()

    def clear(self) -> None:
        """Let applying go on."""
        self._event.clear()


@dataclass
class Try:
    """How often the retrain of one job had to begin again, and how often its publication lost to another."""

    restarts: int = 0
    losses: int = 0


def request_retrain(store: Store, *, author: str, reason: str | None = None, now: datetime | None = None) -> Job:
    """Queue a retrain, or return the one that is queued already. Raises Conflict if there is nothing to train on and nothing to
    undo.
    """
    now = now or datetime.now(UTC)
    with store.write() as connection:
        head = heads.lock(connection)
        waiting = jobs.active(connection, "retrain", "queued")
        if waiting is not None:
            return waiting
        live_set = versions.live_set(connection, head.version)
        if not snapshot(connection, live_set) and not live_set.held:
            raise Conflict("there is nothing to retrain: no edit is live or deferred")
        job = jobs.insert(connection, "retrain", reason=reason, author=author, now=now)
        events.write(connection, [Event(type="retrain.requested", job_id=job.id, author=author)], now=now)
    return job


def queue_if_due(parts: Parts) -> bool:
    """Queue a retrain if the cadence asks for one; whether it did."""
    with parts.store.read() as connection:
        reason = cadence.retrain_reason(standing_of(connection, parts), parts.settings.cadence)
    if reason is not None:
        request_retrain(parts.store, author=SERVICE, reason=reason, now=parts.clock())
    return reason is not None


def retrain(parts: Parts, turn: Turn, pressed: Pressed) -> bool:
    """Do the retrain that is queued or was left unfinished; whether there was one. Ends published, or failed with a reason in
    its row.
    """
    job = _claim(parts, turn)
    if job is None:
        return False
    tries = Try()
    try:
        while job is not None and job.status == "running":
            if _once(parts, turn, job, tries, pressed):
                break
            job = _begin_again(parts, turn, tries, pressed)
    finally:
        pressed.clear()
    return True


def _claim(parts: Parts, turn: Turn) -> Job | None:
    with parts.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, turn.fence)
        job = jobs.active(connection, "retrain")
        if job is None:
            return None
        now = parts.clock()
        if job.status == "queued":
            return _take_snapshot(connection, parts, turn, job)
        if job.claims >= parts.settings.claims:
            jobs.finish(connection, job.id, error="it ended the process again and again", now=now)
            return jobs.get(connection, job.id)
        values = {"fence": turn.fence, "claims": job.claims + int(job.fence != turn.fence), "progress": 0.0}
        jobs.update(connection, job.id, **values)
        # A job left by a worker is repeated as it was, if all of its snapshot is still wanted.
        if _still_wanted(connection, job.edit_ids):
            return jobs.get(connection, job.id)
        return _take_snapshot(connection, parts, turn, jobs.get(connection, job.id))


def _take_snapshot(connection: Connection, parts: Parts, turn: Turn, job: Job) -> Job:
    live_set = versions.live_set(connection, heads.read(connection).version)
    items = snapshot(connection, live_set)
    ids = [item.edit_id for item in items]
    values = {"parent": heads.read(connection).version, "seed": seed_of(edits.many(connection, ids), job.failures)}
    if job.status == "queued":
        values |= {"claims": job.claims + 1}
    return jobs.update(
        connection, job.id, status="running", edit_ids=ids, fence=turn.fence, started_at=job.started_at or parts.clock(), **values
    )


def _still_wanted(connection: Connection, edit_ids: Sequence[str]) -> bool:
    """Whether every edit of a snapshot is live or deferred, and none was asked to be taken back."""
    found = edits.many(connection, edit_ids)
    wanted = all(edit.status.is_live or edit.status is EditStatus.DEFERRED for edit in found)
    return wanted and not edits.retracted(connection, edit_ids)


def _begin_again(parts: Parts, turn: Turn, tries: Try, pressed: Pressed) -> Job | None:
    """Another snapshot for the running job. Applying pauses once this happened too often, and the job fails if even that does
    not help.
    """
    tries.restarts += 1
    if tries.restarts > parts.settings.patience:
        pressed.set()
    with parts.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, turn.fence)
        job = jobs.active(connection, "retrain", "running")
        if job is None:
            return None
        if tries.restarts > parts.settings.restarts:
            error = "the head or edits of its snapshot changed again and again"
            jobs.finish(connection, job.id, error=error, now=parts.clock())
            return None
        return _take_snapshot(connection, parts, turn, job)


def _once(parts: Parts, turn: Turn, job: Job, tries: Try, pressed: Pressed) -> bool:
    """Train on the job's snapshot and publish; False if an edit of it left meanwhile, so that it has to begin again."""
    known = known_edits(parts, LiveSet(), job.edit_ids)
    with parts.store.read() as connection:
        items = tuple(edits.items(connection, job.edit_ids))
    assert job.seed is not None

    def left() -> bool:
        with parts.store.read() as connection:
            return not _still_wanted(connection, job.edit_ids)

    watch = Watch(parts, turn, job.id, "retrain.middle", edits_first=True)
    trained: Fitted | None = None
    if items:
        trained = parts.editors.locft(items_of(items, known), job.seed, watch.hooks())
    point("retrain.before_publish")
    while not left():
        try:
            if _catch_up_and_publish(parts, turn, job, items, trained, watch):
                return True
        except FenceLost:
            raise
        except Stale:
            tries.losses += 1
            if tries.losses >= parts.settings.patience:
                pressed.set()
            if tries.losses > parts.settings.restarts:
                tries.restarts = parts.settings.restarts  # the next one is one too many
                return False
    return False


def _catch_up_and_publish(
    parts: Parts, turn: Turn, job: Job, items: tuple[LiveItem, ...], trained: Fitted | None, watch: Watch
) -> bool:
    """Fit what is live beyond the snapshot on top of the new tensors and publish both; True also if the gate ended the job."""
    stand = standpoint(parts)
    ids, keys = {item.edit_id for item in items}, {item.key: item.edit_id for item in items}
    with parts.store.read() as connection:
        gone = going(connection, stand.live_set)
        standing = [*(item for item in stand.live_set.live if item.edit_id not in gone), *coming_back(connection, gone)]
    arrived = [item for item in standing if item.edit_id not in ids and item.key not in keys]
    superseded = {item.edit_id: keys[item.key] for item in standing if item.edit_id not in ids and item.key in keys}
    tensors = EMPTY if trained is None else trained.overlay
    lost = [] if trained is None else [edit_id for edit_id in trained.lost if edit_id in ids]
    live_set = liveset.consolidate(items, arrived, lost)
    fitted, live_set, dropped = _window(parts, tensors, live_set, job, watch)
    scores = scores_of(fitted or trained, live_set)
    moved = [item for item in items if not _was_held(stand, item)]
    decision = gate.decide(scores, stand.version.scores, edits=len(moved), limits=parts.settings.gate)
    if not decision.passes:
        _refuse(parts, turn, job, decision.reasons)
        return True
    with parts.store.read() as connection:
        superseded = {**edits.deferred_before(connection, items), **superseded}
    changes = [Change(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in gone]
    changes += [_dropped(edit_id, edit_id in ids) for edit_id in dropped]
    reports = {} if trained is None else dict(trained.reports)
    if fitted is not None:  # of what the tensors did not take, the fit that did take it is reported
        reports |= {edit_id: fitted.reports[edit_id] for edit_id in lost if edit_id in fitted.reports}
    reports = {edit_id: report for edit_id, report in reports.items() if edit_id not in dropped}
    changes += live_changes(stand.live_set, live_set, superseded=superseded, reports=reports)
    publish(
        parts,
        Candidate(
            parent=stand.head,
            fence=turn.fence,
            kind=VersionKind.LOCFT,
            overlay=tensors if fitted is None else fitted.overlay,
            live_set=live_set,
            changes=changes,
            author=job.author,
            reason=job.reason,
            scores=scores,
            job_id=job.id,
            standing=[*ids, *(item.edit_id for item in arrived)],
        ),
    )
    return True


def _window(
    parts: Parts, tensors: Overlay, live_set: LiveSet, job: Job, watch: Watch
) -> tuple[Fitted | None, LiveSet, list[str]]:
    """Fit the window of a retrained version; what it does not hold leaves the live set (the tensors did not take it either).

    After the last round the fit counts as it is, without what it lost.
    """
    known = known_edits(parts, live_set)
    dropped: list[str] = []
    fitted: Fitted | None = None
    for _ in range(parts.settings.rounds):
        if not live_set.window:
            return None, live_set, dropped
        asked = items_of(live_set.window, known)
        settled = items_of(live_set.settled, known)
        fitted = parts.editors.baft(tensors, asked, settled, seed_of([item.edit for item in asked], job.failures), watch.hooks())
        window = {item.edit_id for item in live_set.window}
        lost = [edit_id for edit_id in fitted.lost if edit_id in window]
        dropped += lost
        live_set = LiveSet(tuple(item for item in live_set.items if item.edit_id not in lost))
        if not lost:
            break
    return fitted, live_set, dropped


def _was_held(stand: Standpoint, item: LiveItem) -> bool:
    was = stand.live_set.get(item.edit_id)
    return was is not None and was.held


def _dropped(edit_id: str, was_trained: bool) -> Change:
    """What becomes of an edit that the new version does not answer: it fails if the retrain had it, else it waits for the next
    one.
    """
    if was_trained:
        return Change(edit_id=edit_id, status=EditStatus.FAILED, error=NOT_HELD)
    return Change(edit_id=edit_id, status=EditStatus.DEFERRED, error=LOST)


def _refuse(parts: Parts, turn: Turn, job: Job, reasons: Sequence[str]) -> None:
    with parts.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, turn.fence)
        now = parts.clock()
        jobs.finish(connection, job.id, error="; ".join(reasons), now=now)
        happened = Event(type="candidate.refused", job_id=job.id, author=job.author, data={"reasons": list(reasons)})
        events.write(connection, [happened], now=now)
