"""The end of a retrain: what is live beyond its snapshot is fitted on top of the new tensors by BaFT, and both are published.

What the tensors did not take becomes part of the new window too. Only a head that has not moved since is published on. An edit of
the snapshot that was superseded meanwhile stays in the tensors, under the newer one: as if that had come just after the retrain.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain import acceptance, liveset
from service.domain.edit import Edit, EditStatus
from service.domain.errors import Stale
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import VersionKind
from service.editors.protocol import FitCancelled, FitResult
from service.lifecycle.cadence_inputs import read_tensor_scores
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fitting import items_of, read_fit_edits, scores_of, seed_of
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.refit import read_pending_retractions, read_restored_items
from service.lifecycle.retrain.retries import end_failed
from service.lifecycle.retrain.snapshots import RetrainPlan
from service.lifecycle.statuses import changes_of_live_sets
from service.lm.overlay import EMPTY, Overlay
from service.store import edits, events, heads
from service.store.edits import StatusChange
from service.store.events import Event
from service.store.jobs import Job

NOT_HELD = "neither the retrain nor BaFT on top of it took this edit"
COSTS_OTHERS = "with it in the window on the new tensors, edits that are live would have been lost; it waits for the next retrain"
LOST = "it was lost when the window was fitted on the new tensors; it waits for the next retrain"


class SnapshotOutdated(Exception):
    """What was trained cannot be published any more, and another snapshot may do better."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NewcomersRefused(Exception):
    """What was trained was not accepted, and edits of the snapshot that were not live before (`newcomers`, oldest first) may be
    why.
    """

    def __init__(self, reasons: Sequence[str], newcomers: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons, self.newcomers = tuple(reasons), tuple(newcomers)


@dataclass(frozen=True)
class HeadChanges:
    """What the head has beyond a snapshot: edits that `arrived` and will be the new window's, live ones that are `giving_way` to
    one of the snapshot ({old id: new id}), and what is asked to be taken back, which is `gone`.
    """

    arrived: tuple[LiveItem, ...]
    giving_way: Mapping[str, str]
    gone: Collection[str]


@dataclass(frozen=True)
class FittedWindow:
    """The new window as it was fitted: `dropped` are the live edits that it does not hold, and nothing else does, with why."""

    fitted: FitResult | None
    live_set: LiveSet
    dropped: Mapping[str, str] = field(default_factory=dict)


def catch_up_and_publish(
    context: LifecycleContext,
    lease: Lease,
    job: Job,
    plan: RetrainPlan,
    trained: FitResult | None,
    job_hooks: JobHooks,
    head: HeadSnapshot,
) -> bool:
    """Fit what is live beyond the snapshot on top of the new tensors and publish both, or end the job as not accepted;
    whether it was published.

    Raises Stale if the head moved; Again if the new window would be larger than a window may be and another snapshot would help;
    TooCostly if one without its newcomers might.
    """
    ids = {item.edit_id for item in plan.items}
    beyond = _beyond(context, plan, head)
    arrived = {item.edit_id for item in beyond.arrived}
    tensors = EMPTY if trained is None else trained.overlay
    live_set = _consolidated(plan, beyond.arrived, () if trained is None else trained.lost)
    lost = [item for item in live_set.window if item.is_live and item.edit_id in ids]
    if len(lost) > context.settings.cadence.hard:
        _refuse(context, lease, job, [f"it lost {len(lost)} edits, more than a window may hold"])
        return False
    if len(lost) + len(arrived) > context.settings.cadence.hard:
        raise SnapshotOutdated("with the edits that arrived meanwhile the new window would be too long")
    window = _fit_window(context, tensors, live_set, arrived, job, job_hooks, head)
    unseated = {old: LOST for old, new in beyond.giving_way.items() if new in window.dropped}
    window = replace(window, dropped={**window.dropped, **unseated})
    scores = _scores(context, head, plan, trained, window)
    newcomers = [item.edit_id for item in plan.items if item.edit_id not in head.live_set.ids]
    reasons = _judge(context, head, len(newcomers), window, scores)
    if reasons and newcomers:
        raise NewcomersRefused(reasons, newcomers)
    if reasons:
        _refuse(context, lease, job, reasons)
        return False
    publish(
        context,
        Candidate(
            parent=head.row,
            fence=lease.fence,
            kind=VersionKind.LOCFT,
            overlay=tensors if window.fitted is None else window.fitted.overlay,
            live_set=window.live_set,
            changes=_changes(context, head, plan, trained, beyond, window),
            author=job.author,
            reason=job.reason,
            scores=scores,
            job_id=job.id,
            required_edits=[*ids, *arrived],
            mode=plan.mode,
            asked=len(plan.items) if window.fitted is None else _asked(window.live_set),
        ),
    )
    return True


def _beyond(context: LifecycleContext, plan: RetrainPlan, head: HeadSnapshot) -> HeadChanges:
    ids, of_key = {item.edit_id for item in plan.items}, {item.key: item for item in plan.items}
    with context.store.read() as connection:
        gone = read_pending_retractions(connection, head.live_set)
        standing = [*(item for item in head.live_set.live if item.edit_id not in gone), *read_restored_items(connection, gone)]
    others = [item for item in standing if item.edit_id not in ids]
    older = {item.edit_id: of_key[item.key].edit_id for item in others if item.key in of_key and item.seq < of_key[item.key].seq}
    return HeadChanges(tuple(item for item in others if item.edit_id not in older), older, gone)


def _consolidated(plan: RetrainPlan, arrived: Sequence[LiveItem], lost: Collection[str]) -> LiveSet:
    if plan.mode == "major":
        return liveset.consolidate_major(plan.items, arrived, lost)
    return liveset.consolidate_minor(plan.start_set, plan.items, arrived, lost)


def _fit_window(
    context: LifecycleContext,
    tensors: Overlay,
    live_set: LiveSet,
    arrived: Collection[str],
    job: Job,
    job_hooks: JobHooks,
    head: HeadSnapshot,
) -> FittedWindow:
    """Fit the new window, ahead of everything that waits for a fit of edits. Raises Stale as soon as the head moves."""

    def is_overtaken() -> bool:
        return context.follower.current.epoch > head.row.epoch

    with context.edit_fits_idle.busy():
        try:
            return _rounds(
                context, tensors, live_set, arrived, job, replace(job_hooks, is_stale=is_overtaken, yields_to_edits=False)
            )
        except FitCancelled:
            if is_overtaken():
                raise Stale("the head has moved since the fit began") from None
            raise


def _rounds(
    context: LifecycleContext, tensors: Overlay, live_set: LiveSet, arrived: Collection[str], job: Job, job_hooks: JobHooks
) -> FittedWindow:
    """Fit the window of a retrained version until nothing is lost: what it does not take leaves the live set (the tensors did
    not take it either); if edits in the tensors are lost, the newest that arrived does; and so on.

    After the last round the fit counts as it is. What it lost is not live, but the overlay was trained on it.
    """
    known = _known(context, live_set)
    dropped: dict[str, str] = {}
    for left in reversed(range(context.settings.rounds)):
        live_set = liveset.reset_window(live_set)
        unsaid = [item.edit_id for item in live_set.window if item.is_tombstone and item.answer is None]
        live_set = liveset.set_tombstone_answers(
            live_set, {edit_id: context.editors.base_answer(known[edit_id]) for edit_id in unsaid}
        )
        if not live_set.window:
            return FittedWindow(None, live_set, dropped)
        asked = items_of(live_set.window, known)
        settled = items_of(live_set.consolidated_sample, known)
        fitted = context.editors.baft(tensors, asked, settled, seed_of([item.edit for item in asked]), job_hooks.hooks())
        lost = [item for item in live_set.window if item.is_live and item.edit_id in fitted.lost]
        dropped |= {item.edit_id: LOST for item in lost}
        if left and not lost and any(item.edit_id in fitted.lost for item in live_set.consolidated):
            lost = [item for item in live_set.window if item.edit_id in arrived][-1:]
            dropped |= {item.edit_id: COSTS_OTHERS for item in lost}
        if not lost:
            break
        live_set = liveset.mark_lost(live_set, lost)
    return FittedWindow(fitted, live_set, dropped)


def _known(context: LifecycleContext, live_set: LiveSet) -> dict[str, Edit]:
    """What fits of the window are given, with what may be entombed on the way."""
    keys = {item.key for item in live_set.window}
    return read_fit_edits(context, live_set, [item.edit_id for item in live_set.items if not item.is_live and item.key in keys])


def _scores(
    context: LifecycleContext, head: HeadSnapshot, plan: RetrainPlan, trained: FitResult | None, window: FittedWindow
) -> dict[str, Any]:
    """The scores of the new version; those of its tensors alone; and after minor retrains, how far these had drifted."""
    scores = scores_of(window.fitted or trained, window.live_set)
    if trained is not None:
        scores["tensors"] = {name: trained.scores[name] for name in ("canary", "retention") if name in trained.scores}
    if trained is not None and plan.mode == "major" and head.version.minors:
        scores["drift"] = _drift(context, head, trained)
    return scores


def _drift(context: LifecycleContext, head: HeadSnapshot, trained: FitResult) -> dict[str, Any]:
    """How far the tensors of minor retrains were from those that a major one comes to: relative Frobenius distances, and the
    figures of both without their windows.
    """
    overlay = load_head_overlay(context, head.version)
    with context.store.read() as connection:
        minor = read_tensor_scores(connection, head.version, minors=head.version.minors)
    of_both = {
        name: {"minor": minor.get(name), "major": trained.scores.get(name)}
        for name in ("canary", "retention")
        if name in trained.scores
    }
    return {
        "minors": head.version.minors,
        "from_head": context.editors.distance(trained.overlay, overlay),
        "from_base": context.editors.distance(trained.overlay, EMPTY),
        "head_from_base": context.editors.distance(overlay, EMPTY),
        **of_both,
    }


def _judge(
    context: LifecycleContext, head: HeadSnapshot, newcomers: int, window: FittedWindow, scores: Mapping[str, Any]
) -> tuple[str, ...]:
    """Why the retrain is not accepted; nothing if it is."""
    limits = context.settings.acceptance
    answered = head.live_set.ids - set(head.version.scores.get("lost", ()))
    unanswered = {*window.dropped, *(() if window.fitted is None else window.fitted.lost)}
    lost = acceptance.judge_losses(len(answered & unanswered), len(answered), limits)
    kept = acceptance.judge_scores(scores, head.version.scores, edits=newcomers, limits=limits, retrain=True)
    return (*kept.reasons, *lost.reasons)


def _changes(
    context: LifecycleContext,
    head: HeadSnapshot,
    plan: RetrainPlan,
    trained: FitResult | None,
    beyond: HeadChanges,
    window: FittedWindow,
) -> list[StatusChange]:
    """What the publication makes of edits. One that was dropped supersedes nothing."""
    live, ids = window.live_set.ids, {item.edit_id for item in plan.items}
    with context.store.read() as connection:
        superseded = edits.find_outdated_deferred(connection, [item for item in plan.items if item.edit_id in live])
    superseded |= {old: new for old, new in beyond.giving_way.items() if new in live}
    changes = [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in beyond.gone]
    changes += [_dropped(edit_id, why, edit_id in ids) for edit_id, why in window.dropped.items()]
    reports = _reports(trained, window)
    return changes + changes_of_live_sets(head.live_set, window.live_set, superseded=superseded, reports=reports)


def _reports(trained: FitResult | None, window: FittedWindow) -> dict[str, Mapping[str, Any]]:
    """Of what the tensors did not take, the fit that did take it is reported."""
    reports = {} if trained is None else dict(trained.reports)
    if trained is not None and window.fitted is not None:
        reports |= {edit_id: window.fitted.reports[edit_id] for edit_id in trained.lost if edit_id in window.fitted.reports}
    return {edit_id: report for edit_id, report in reports.items() if edit_id not in window.dropped}


def _asked(live_set: LiveSet) -> int:
    """How many items the fit of a window was given."""
    return len(live_set.window) + len(live_set.consolidated_sample)


def _dropped(edit_id: str, why: str, was_trained: bool) -> StatusChange:
    """What becomes of an edit that the new version does not answer: it fails if the retrain had it, else it waits for the next
    one.
    """
    if was_trained:
        return StatusChange(edit_id=edit_id, status=EditStatus.FAILED, error=NOT_HELD)
    return StatusChange(edit_id=edit_id, status=EditStatus.DEFERRED, error=why)


def _refuse(context: LifecycleContext, lease: Lease, job: Job, reasons: Sequence[str]) -> None:
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        now = context.clock()
        end_failed(connection, context, job, "; ".join(reasons))
        happened = Event(type="candidate.refused", job_id=job.id, author=job.author, data={"reasons": list(reasons)})
        events.write(connection, [happened], now=now)
