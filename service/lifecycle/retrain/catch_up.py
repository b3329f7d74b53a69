"""The catch-up of a retrain: BaFT fits on top of the new tensors what is live beyond the snapshot, and both are one candidate.

Edits that the tensors lost enter the new window too. The candidate is published only if the head has not moved since. An edit
of the snapshot that was superseded meanwhile stays in the tensors under its successor, as if the successor had come just after
the retrain.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain import acceptance, liveset
from service.domain.acceptance import Decision
from service.domain.edit import EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.editors.protocol import FitCancelled, FitResult
from service.lifecycle.cadence_inputs import read_tensor_scores
from service.lifecycle.context import EditingContext
from service.lifecycle.fit_inputs import read_fit_edits, scores_of
from service.lifecycle.fit_loop import fit_until_final
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.locality import FIXED, NEAR_EDITS, kept_of, measure_locality
from service.lifecycle.publish import Candidate
from service.lifecycle.refit import read_pending_retractions, read_restored_items
from service.lifecycle.retrain.kept_out import choose_to_keep_out, is_refused_for_the_window
from service.lifecycle.retrain.outcomes import ForcedRefused, HeadMoved, NewcomersRefused, NotAccepted, RestartNeeded
from service.lifecycle.retrain.snapshots import RetrainPlan
from service.lifecycle.statuses import changes_of_live_sets, defer
from service.lifecycle.window_policy import WindowPolicy
from service.lm.overlay import EMPTY, Overlay
from service.store import edits
from service.store.edits import StatusChange
from service.store.jobs import Job

LOST_BY_BOTH = "neither the retrain nor BaFT on top of it took this edit"
LOSES_LIVE_EDITS = (
    "with it in the window on the new tensors, edits that are live would have been lost; it waits for the next retrain"
)
LOST = "it was lost when the window was fitted on the new tensors; it waits for the next retrain"


@dataclass(frozen=True)
class HeadChanges:
    """What the head has beyond a snapshot: `additions` enter the new window; `superseded` maps live edits to their successors
    in the snapshot (by id); `retracted_ids` are edits whose retraction was requested.
    """

    additions: tuple[LiveItem, ...]
    superseded: Mapping[str, str]
    retracted_ids: Collection[str]


@dataclass(frozen=True)
class FittedWindow:
    """The new window with its fit (None for an empty window). `drop_reasons` maps live edits that the new version does not
    answer to the reason.
    """

    fitted: FitResult | None
    live_set: LiveSet
    drop_reasons: Mapping[str, str] = field(default_factory=dict)


def prepare_candidate(
    context: EditingContext,
    lease: Lease,
    job: Job,
    plan: RetrainPlan,
    trained: FitResult | None,
    job_hooks: JobHooks,
    head: HeadSnapshot,
) -> Candidate | RestartNeeded | NewcomersRefused | ForcedRefused | NotAccepted | HeadMoved:
    """Fit what is live beyond the snapshot on top of the new tensors, and judge both: a candidate, or why there is none."""
    ids = {item.edit_id for item in plan.items}
    changes_of_head = _read_head_changes(context, plan, head)
    added_ids = {item.edit_id for item in changes_of_head.additions}
    tensors = EMPTY if trained is None else trained.overlay
    live_set = _new_live_set(plan, changes_of_head.additions, () if trained is None else trained.lost)
    lost = [item for item in live_set.window if item.is_live and item.edit_id in ids]
    if len(lost) > context.settings.cadence.hard:
        return NotAccepted((f"it lost {len(lost)} edits, more than a window may hold",))
    if len(lost) + len(added_ids) > context.settings.cadence.hard:
        return RestartNeeded("with the edits that arrived meanwhile the new window would be too long")
    window = _fit_window(context, job, tensors, live_set, added_ids, job_hooks, head)
    if window is None:
        return HeadMoved()
    unsuperseded = {old: LOST for old, new in changes_of_head.superseded.items() if new in window.drop_reasons}
    window = replace(window, drop_reasons={**window.drop_reasons, **unsuperseded})
    newcomers = tuple(item.edit_id for item in plan.items if item.edit_id not in head.live_set.ids)
    scores, tensor_scores = _scores(context, head, plan, trained, window, newcomers, job_hooks)
    decision = _judge(context, head, len(newcomers), window, scores)
    overruled = None
    if not decision.is_accepted:
        if kept_out := choose_to_keep_out(context, plan, head, window.live_set):
            return ForcedRefused(decision.reasons, kept_out)
        if not is_refused_for_the_window(context, decision, head, tensor_scores, window.live_set, newcomers):
            reasons, figures = decision.reasons, decision.figures
            return NewcomersRefused(reasons, newcomers, figures) if newcomers else NotAccepted(reasons, figures)
        overruled = decision
    return Candidate(
        parent=head.row,
        fence=lease.fence,
        kind=plan.method,
        overlay=tensors if window.fitted is None else window.fitted.overlay,
        live_set=window.live_set,
        changes=_changes(context, head, plan, trained, changes_of_head, window),
        author=job.author,
        reason=job.reason,
        scores=scores,
        job_id=job.id,
        neutral_sentences=None if trained is None and window.fitted is None else job.neutral_sentences,
        required_edits=[*ids, *added_ids],
        mode=plan.mode,
        item_count=len(plan.items) if window.fitted is None else _item_count(window.live_set),
        overruled=overruled,
    )


def _read_head_changes(context: EditingContext, plan: RetrainPlan, head: HeadSnapshot) -> HeadChanges:
    ids, of_key = {item.edit_id for item in plan.items}, {item.key: item for item in plan.items}
    with context.store.read() as connection:
        retracted_ids = read_pending_retractions(connection, head.live_set)
        live = [
            *(item for item in head.live_set.live if item.edit_id not in retracted_ids),
            *read_restored_items(connection, retracted_ids),
        ]
    others = [item for item in live if item.edit_id not in ids]
    older = {item.edit_id: of_key[item.key].edit_id for item in others if item.key in of_key and item.seq < of_key[item.key].seq}
    return HeadChanges(tuple(item for item in others if item.edit_id not in older), older, retracted_ids)


def _new_live_set(plan: RetrainPlan, additions: Sequence[LiveItem], lost: Collection[str]) -> LiveSet:
    if plan.mode == "major":
        return liveset.consolidate_major(plan.items, additions, lost)
    return liveset.consolidate_minor(plan.start_set, plan.items, additions, lost)


def _fit_window(
    context: EditingContext,
    job: Job,
    tensors: Overlay,
    live_set: LiveSet,
    added_ids: Collection[str],
    job_hooks: JobHooks,
    head: HeadSnapshot,
) -> FittedWindow | None:
    """Fit the new window, before any waiting fit of edits. None as soon as the head moves.

    A window edit that the fit loses leaves the live set: the tensors lost it too. If consolidated edits are lost, the newest
    addition is left out.
    """

    def is_head_moved() -> bool:
        return head.is_replaced(context)

    keys = {item.key for item in live_set.window}  # what is not live may become a tombstone in a later round
    known = read_fit_edits(context, live_set, [item.edit_id for item in live_set.items if not item.is_live and item.key in keys])
    editor = context.editors_by_part.of(job.neutral_sentences).incremental
    policy = WindowPolicy(context, editor, tensors, live_set, known, LOST, additions=added_ids, addition_reason=LOSES_LIVE_EDITS)
    hooks = replace(job_hooks, is_stale=is_head_moved, yields_to_edits=False)
    with context.edit_fits_idle.busy():
        try:
            fitted = fit_until_final(context, job, policy, hooks)
        except FitCancelled:
            if is_head_moved():
                return None
            raise
    return FittedWindow(fitted, policy.live_set, policy.drop_reasons)


def _scores(
    context: EditingContext,
    head: HeadSnapshot,
    plan: RetrainPlan,
    trained: FitResult | None,
    window: FittedWindow,
    newcomers: Sequence[str],
    job_hooks: JobHooks,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of the new version, with those of its tensors alone and after minor retrains the drift of their tensors; and the
    scores of the tensors alone as acceptance judges them. What is near edits is asked about the newcomers, or else about edits
    that are live already.
    """
    fitted, hooks, live_ids = window.fitted or trained, job_hooks.hooks(), window.live_set.ids
    with context.store.read() as connection:
        asked = edits.read_many(connection, newcomers or [item.edit_id for item in plan.items][:NEAR_EDITS])
    parent = load_head_overlay(context, head.version)

    def measure(overlay: Overlay) -> dict[str, Any]:
        groups = measure_locality(context, overlay, parent, asked, live_ids, hooks)
        return {"locality": groups} if groups else {}

    scores = scores_of(fitted, window.live_set)
    if fitted is not None:
        scores |= measure(fitted.overlay)
    if trained is None:
        return scores, {}
    alone = {**trained.scores, **measure(trained.overlay)}
    figures = {"retention": trained.scores.get("retention"), **{name: kept_of(alone, name) for name in FIXED}}
    scores["tensors"] = {name: score for name, score in figures.items() if score is not None}
    if plan.mode == "major" and head.version.minors:
        scores["drift"] = _drift(context, head, trained, scores["tensors"])
    return scores, alone


def _drift(context: EditingContext, head: HeadSnapshot, trained: FitResult, major: Mapping[str, float]) -> dict[str, Any]:
    """The distance between the tensors of the minor retrains and those of the major one: relative Frobenius distances, and the
    scores of both without windows.
    """
    overlay = load_head_overlay(context, head.version)
    with context.store.read() as connection:
        minor = read_tensor_scores(connection, head.version, minors=head.version.minors)
    of_both = {name: {"minor": minor.get(name), "major": score} for name, score in major.items()}
    return {
        "minors": head.version.minors,
        "from_head": context.editors.distance(trained.overlay, overlay),
        "from_base": context.editors.distance(trained.overlay, EMPTY),
        "head_from_base": context.editors.distance(overlay, EMPTY),
        **of_both,
    }


def _judge(
    context: EditingContext, head: HeadSnapshot, newcomers: int, window: FittedWindow, scores: Mapping[str, Any]
) -> Decision:
    limits = context.settings.acceptance
    answered = head.live_set.ids - set(head.version.scores.get("lost", ()))
    unanswered = {*window.drop_reasons, *(() if window.fitted is None else window.fitted.lost)}
    lost = acceptance.judge_losses(len(answered & unanswered), len(answered), limits)
    kept = acceptance.judge_scores(scores, head.version.scores, edits=newcomers, limits=limits, retrain=True)
    return acceptance.judge_both(kept, lost)


def _changes(
    context: EditingContext,
    head: HeadSnapshot,
    plan: RetrainPlan,
    trained: FitResult | None,
    changes_of_head: HeadChanges,
    window: FittedWindow,
) -> list[StatusChange]:
    """The changes of edits that the publication implies. A dropped edit supersedes nothing."""
    live, ids = window.live_set.ids, {item.edit_id for item in plan.items}
    with context.store.read() as connection:
        superseded = edits.find_outdated_deferred(connection, [item for item in plan.items if item.edit_id in live])
    superseded |= {old: new for old, new in changes_of_head.superseded.items() if new in live}
    changes = [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in changes_of_head.retracted_ids]
    changes += [
        StatusChange(edit_id=edit_id, status=EditStatus.FAILED, error=LOST_BY_BOTH)  # the retrain trained it
        if edit_id in ids
        else defer(edit_id, reason, tried_on=head.version.number)
        for edit_id, reason in window.drop_reasons.items()
    ]
    reports = _reports(trained, window)
    return changes + changes_of_live_sets(
        head.live_set, window.live_set, superseded=superseded, reports=reports, accepted_anyway=False
    )


def _reports(trained: FitResult | None, window: FittedWindow) -> dict[str, Mapping[str, Any]]:
    """The reports of the retrain; for the edits that it lost, those of the window's fit."""
    reports = {} if trained is None else dict(trained.reports)
    if trained is not None and window.fitted is not None:
        reports |= {edit_id: window.fitted.reports[edit_id] for edit_id in trained.lost if edit_id in window.fitted.reports}
    return {edit_id: report for edit_id, report in reports.items() if edit_id not in window.drop_reasons}


def _item_count(live_set: LiveSet) -> int:
    """The number of items that the fit of a window trains on."""
    return len(live_set.window) + len(live_set.consolidated_sample)
