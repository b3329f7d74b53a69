"""Applying: edits that wait together become one job. BaFT fits them on top of the head; then they are published or deferred.

The row of a job holds its edits, parent, seed and number of neutral sentences, so that a worker that restarts repeats the job
exactly. If the head moves during the fit, the job is repeated on the new head. A fit stops as soon as one of its edits is
retracted, and the job is repeated without that edit. The fit of a large edit also gives way to small edits, and the large edit is
queued again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from service.domain import acceptance, cadence, liveset
from service.domain.acceptance import Decision
from service.domain.edit import ANYWAY, Edit, EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.editors.protocol import FitCancelled, FitFailed, FitOverdue, FitResult, Hooks
from service.lifecycle import next_edits
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.context import EditingContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.fenced import fenced_write
from service.lifecycle.fit_inputs import items_of, read_fit_edits, scores_of, seed_of
from service.lifecycle.fit_loop import FitRound, fit_until_final
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay, read_head
from service.lifecycle.job_claims import WORN_OUT, claim_job, is_worn_out, sentences_of
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.kept_edits import kept_items
from service.lifecycle.lease import Lease
from service.lifecycle.locality import measure_locality
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import changes_of_live_sets, defer, write_statuses
from service.store import edits, heads, jobs
from service.store.edits import StatusChange
from service.store.jobs import Job

LOST = "it was not taken by BaFT and waits for the next retrain"
LOSES_LIVE_EDITS = "with it, edits that are live would have been lost; it waits for the next retrain"
WINDOW_FULL = "the window is full; it waits for the next retrain"


@dataclass(frozen=True)
class _Refused:
    """A fit of one edit that was not accepted, with what it was judged by."""

    fitted: FitResult
    decision: Decision
    scores: Mapping[str, Any]


class ApplyPolicy:
    """Fits the new edits of a job on top of the head, with a replay of the window. A round leaves out the new edits that its fit
    lost. If the fit lost live edits, the round leaves out the newest new edit; if the fit was not accepted, the newer half.

    The last fit counts if it lost new edits only: these edits are deferred, and the live set records that the window was trained
    on them. `entrants` are the new edits of the fit that counts, `deferrals` maps the edits to defer to that change, and
    `requeued_ids` wait for another job.

    A single edit that is refused for its cost to the rest of the model is fitted again, with the rest held more firmly, before
    it is deferred. Nothing that the client posted is left out for it.

    If a firmer fit fails, loses an edit or does not end in time, the refused fit before it counts as the last one.

    A refusal of a single edit that is to be accepted anyway is `overruled`, if it is about locality alone and the fit lost
    nothing. Of several edits each gets there by itself, so that no refusal is overruled for an edit that did not cause it.
    """

    def __init__(self, context: EditingContext, head: HeadSnapshot, job: Job, hooks: Hooks) -> None:
        self._context, self._head, self._job, self._hooks = context, head, job, hooks
        with context.store.read() as connection:
            self._items = edits.read_items(connection, job.edit_ids)
            self._anyway_ids = {edit.id for edit in edits.read_many(connection, job.edit_ids) if edit.accept == ANYWAY}
        self.live_set = head.live_set
        self.superseded: dict[str, str] = {}
        self.entrants: tuple[LiveItem, ...] = ()
        self.deferrals: dict[str, StatusChange] = {}
        self.overruled: Decision | None = None
        self.requeued_ids: tuple[str, ...] = ()
        self.scores: Mapping[str, Any] = {}
        self._firmness = 0
        self._refused: _Refused | None = None
        self._overruled_fit: FitResult | None = None
        self._editor = context.editors_by_part.of(job.neutral_sentences).incremental

    def next_round(self) -> FitRound | None:
        """The edits that are neither deferred nor queued again, as the live set takes them."""
        self.live_set, self.superseded = liveset.apply(self._head.live_set, self._candidates())
        ids = {item.edit_id for item in self._items}
        self.entrants = tuple(item for item in self.live_set.window if item.is_live and item.edit_id in ids)
        if not self.entrants:
            return None
        known = read_fit_edits(self._context, self.live_set)
        new = items_of(self.entrants, known)
        window = items_of([item for item in self.live_set.window if item not in self.entrants], known)
        kept = kept_items(self._context, self._editor, self.live_set, [*new, *window], known)
        assert self._job.seed is not None
        overlay = load_head_overlay(self._context, self._head.version)
        return FitRound(overlay, new, [*window, *kept], self._job.seed, self._firmness)

    def take(self, fitted: FitResult, *, is_last: bool) -> FitResult | None:
        """A fit that lost nothing and is accepted, or is the last one and lost new edits only. Or one that is overruled."""
        return fitted if self._is_accepted(fitted, is_last=is_last) else self._overruled_fit

    @property
    def has_refused(self) -> bool:
        """Whether the fit of a single edit was refused, so that a firmer fit need not come to an end."""
        return self._refused is not None

    def settle_refused(self) -> FitResult | None:
        """The refused fit of a single edit, if the refusal is overruled. Else the edit is deferred."""
        assert self._refused is not None
        fitted, refusal, self.scores = self._refused.fitted, self._refused.decision, self._refused.scores
        first = self.entrants[0].edit_id
        if refusal.is_about_locality and first in self._anyway_ids:
            self.overruled, self._overruled_fit = refusal, fitted
        else:
            firmly = ", also with the rest held more firmly" if "firmness" in self.scores else ""
            self._defer([first], f"{'; '.join(refusal.reasons)}{firmly}; it waits for the next retrain", refusal.figures)
        return self._overruled_fit

    def _is_accepted(self, fitted: FitResult, *, is_last: bool) -> bool:
        lost_new = [item for item in self.entrants if item.edit_id in fitted.lost]
        expected_lost = {item.edit_id for item in self.entrants} | set(self._head.version.scores.get("lost", ()))
        loses_live_edits = any(edit_id not in expected_lost for edit_id in fitted.lost)
        lost_figures = _lost_figures(set(fitted.lost) - expected_lost)
        if loses_live_edits or (lost_new and not is_last):  # it cannot count: what else it changes is not asked
            if self._refused is not None:
                self.settle_refused()
                return False
            left_out, reason = (lost_new, LOST) if lost_new else (self.entrants[-1:], LOSES_LIVE_EDITS)
            self._defer([item.edit_id for item in left_out], reason, lost_figures)
            return False
        decision = self._judge(fitted)
        if lost_new:
            self._defer([item.edit_id for item in lost_new], LOST, {**decision.figures, **lost_figures})
            return decision.is_accepted and self._keep_without(lost_new)
        if not decision.is_accepted:
            self._refuse(fitted, decision)
        return decision.is_accepted

    def defer_rest(self) -> None:
        """After the last fit did not count: nothing is published, and the edits that are left wait for the next retrain."""
        self._defer([item.edit_id for item in self._candidates()], LOST, {})
        self.live_set, self.superseded, self.entrants = self._head.live_set, {}, ()

    def _candidates(self) -> list[LiveItem]:
        return [item for item in self._items if item.edit_id not in self.deferrals and item.edit_id not in self.requeued_ids]

    def _defer(self, edit_ids: Sequence[str], reason: str, figures: Mapping[str, Any]) -> None:
        tried_on = self._head.version.number
        self.deferrals |= {edit_id: defer(edit_id, reason, tried_on=tried_on, figures=figures) for edit_id in edit_ids}

    def _keep_without(self, lost: Sequence[LiveItem]) -> bool:
        """Take the fit without the new edits that it lost, if no other edit becomes live in their place."""
        live_set, superseded = liveset.apply(self._head.live_set, self._candidates())
        if not live_set.ids <= self.live_set.ids:
            return False
        self.live_set, self.superseded = liveset.mark_lost(live_set, lost), superseded
        self.entrants = tuple(item for item in self.entrants if item not in lost)
        return True

    def _refuse(self, fitted: FitResult, refusal: Decision) -> None:
        """Queue the newer half of several edits again. A single edit is fitted more firmly, or its refusal is settled."""
        if len(self.entrants) > 1:
            self.requeued_ids += tuple(item.edit_id for item in self.entrants[len(self.entrants) // 2 :])
            return
        self._refused = _Refused(fitted, refusal, self.scores)
        if refusal.is_about_locality and self._firmness < min(self._editor.firmest, self._context.settings.firmer):
            self._firmness += 1
        else:
            self.settle_refused()

    def _judge(self, fitted: FitResult) -> Decision:
        firmness = {"firmness": self._firmness} if self._firmness else {}
        self.scores = {**fitted.scores, **self._measure_locality(fitted), **firmness}
        parent, limits = self._head.version.scores, self._context.settings.acceptance
        return acceptance.judge_scores(self.scores, parent, edits=len(self.entrants), limits=limits)

    def _measure_locality(self, fitted: FitResult) -> dict[str, Any]:
        with self._context.store.read() as connection:
            new = edits.read_many(connection, [item.edit_id for item in self.entrants])
        parent = load_head_overlay(self._context, self._head.version)
        groups = measure_locality(self._context, fitted.overlay, parent, new, self.live_set.ids, self._hooks)
        return {"locality": groups} if groups else {}


def apply(context: EditingContext, lease: Lease) -> bool:
    """Do the next apply job; return whether there was one.

    Raises Stale if the head moved or an edit was retracted during the fit. The job stays and is repeated.
    """
    job = _claim(context, lease)
    if job is None:
        return False
    crash_point("claim.after_commit")
    if job.status == "running":
        _run_job(context, lease, job)
    return True


def give_up_or_narrow(context: EditingContext, lease: Lease, reason: str, *, overdue: bool = False) -> None:
    """After a failed fit of the running job: requeue the newer half and keep the older half. A single edit is tried again with
    another seed, and fails after `attempts` fits. An overdue single edit is deferred: another fit would take as long, and a
    retrain trains it in another way.
    """
    with fenced_write(context, lease.fence) as (connection, _):
        job = jobs.find_active(connection, "apply", "running")
        if job is None:
            return
        if len(job.edit_ids) > 1:
            _narrow(connection, context, job)
        elif overdue:
            _defer(connection, context, job, f"{reason}; it waits for the next retrain")
        elif job.failures + 1 < context.settings.attempts:
            jobs.update(connection, job.id, failures=job.failures + 1)
        else:
            _fail(connection, context, job, reason)
    context.announcer.announce(job.edit_ids)


def _claim(context: EditingContext, lease: Lease) -> Job | None:
    with fenced_write(context, lease.fence) as (connection, _):
        running = jobs.find_active(connection, "apply", "running")
        if running is not None and next_edits.gives_way(connection, context, running.edit_ids):
            _requeue(connection, context, running)
            running = None
        if running is None:
            return _claim_new(connection, context, lease)
        has_sentences = context.editors_by_part.has(running.neutral_sentences)
        return _reclaim(connection, context, lease, running) if has_sentences else None


def _claim_new(connection: Connection, context: EditingContext, lease: Lease) -> Job | None:
    candidates = edits.read_many(connection, next_edits.read_next_edits(connection, context))
    if not candidates:
        return None
    now = context.clock()
    rules = context.settings.cadence
    inputs = read_cadence_inputs(connection, context)
    room = cadence.free_window_places(inputs, rules)
    if room == 0:
        if not cadence.is_full_window_deferring(inputs, rules):
            return None
        write_statuses(connection, context, [defer(edit.id, WINDOW_FULL) for edit in candidates], author=SERVICE)
        job = _new_job(connection, context, candidates)
        return jobs.update(connection, job.id, status="cancelled", finished_at=now)
    claimed = candidates[:room]
    job = _new_job(connection, context, claimed)
    applying = [StatusChange(edit_id=edit.id, status=EditStatus.APPLYING) for edit in claimed]
    write_statuses(connection, context, applying, author=SERVICE, job_id=job.id)
    parent = heads.read(connection).version
    values = {"parent": parent, "seed": seed_of(claimed), "neutral_sentences": sentences_of(context, job)}
    return claim_job(connection, job, fence=lease.fence, now=context.clock(), **values)


def _reclaim(connection: Connection, context: EditingContext, lease: Lease, job: Job) -> Job:
    """Claim a job that a worker left: without edits retracted since, and on the present head."""
    now = context.clock()
    retracted_ids = edits.find_retracted(connection, job.edit_ids)
    applying = [edit for edit in edits.read_many(connection, job.edit_ids) if edit.status is EditStatus.APPLYING]
    retractions = [StatusChange(edit_id=edit.id, status=EditStatus.RETRACTED) for edit in applying if edit.id in retracted_ids]
    write_statuses(connection, context, retractions, author=SERVICE, job_id=job.id)
    claimed = [edit for edit in applying if edit.id not in retracted_ids]
    if not claimed:
        jobs.update(connection, job.id, status="cancelled", finished_at=now)
        return jobs.get(connection, job.id)
    if is_worn_out(job, context.settings.claims):
        _fail(connection, context, job, WORN_OUT)
        return jobs.get(connection, job.id)
    values = {"parent": heads.read(connection).version, "seed": seed_of(claimed, job.failures)}
    return claim_job(connection, job, fence=lease.fence, now=context.clock(), edit_ids=[edit.id for edit in claimed], **values)


def _run_job(context: EditingContext, lease: Lease, job: Job) -> None:
    head = read_head(context)
    job_hooks = JobHooks(
        context,
        lease,
        job.id,
        "fit.middle",
        is_stale=lambda: head.is_replaced(context),
        is_stop_requested=lambda: _should_stop(context, job),
        limit_s=context.settings.fit_s,
    )
    known = read_fit_edits(context, LiveSet(), job.edit_ids)
    policy = ApplyPolicy(context, head, job, job_hooks.hooks())
    try:
        with context.edit_fits_idle.busy():
            fitted = fit_until_final(context, job, policy, job_hooks)
    except (FitCancelled, FitFailed) as error:
        is_over = isinstance(error, FitCancelled) and (lease.is_over() or not job_hooks.is_overdue)
        if policy.has_refused and not is_over:
            fitted = policy.settle_refused()
        elif isinstance(error, FitCancelled) and not is_over:
            raise FitOverdue(f"its fit took longer than {context.settings.fit_s:g} seconds") from None
        else:
            raise
    if fitted is None and policy.entrants:
        policy.defer_rest()
    changes = list(policy.deferrals.values())
    changes += [StatusChange(edit_id=edit_id, status=EditStatus.QUEUED) for edit_id in policy.requeued_ids]
    if fitted is None:
        _finish_unpublished(context, lease, job, changes, policy.superseded)
        return
    with context.store.read() as connection:
        superseded_deferred = edits.find_outdated_deferred(connection, policy.entrants)
    superseded = {**superseded_deferred, **policy.superseded}
    changes += changes_of_live_sets(
        head.live_set,
        policy.live_set,
        superseded=superseded,
        reports=fitted.reports,
        accepted_anyway=policy.overruled is not None,
    )
    entrant_ids = [item.edit_id for item in policy.entrants]
    publish(
        context,
        Candidate(
            parent=head.row,
            fence=lease.fence,
            kind=context.settings.incremental_method,
            overlay=fitted.overlay,
            live_set=policy.live_set,
            changes=changes,
            author=known[entrant_ids[-1]].author,
            scores=scores_of(replace(fitted, scores=policy.scores), policy.live_set),
            job_id=job.id,
            neutral_sentences=job.neutral_sentences,
            required_edits=job.edit_ids,
            item_count=len(policy.live_set.window) + len(policy.live_set.consolidated_sample),
            overruled=policy.overruled,
        ),
    )


def _should_stop(context: EditingContext, job: Job) -> bool:
    """Whether a running fit is for nothing, or holds up smaller edits."""
    with context.store.read() as connection:
        return bool(edits.find_retracted(connection, job.edit_ids)) or next_edits.gives_way(connection, context, job.edit_ids)


def _finish_unpublished(
    context: EditingContext, lease: Lease, job: Job, changes: list[StatusChange], superseded: Mapping[str, str]
) -> None:
    """End a job that publishes nothing: each of its edits was deferred, queued again, or is older than a live edit of the same
    fact.
    """
    changes = changes + [
        StatusChange(edit_id=old, status=EditStatus.SUPERSEDED, superseded_by=new)
        for old, new in superseded.items()
        if old in job.edit_ids
    ]
    with fenced_write(context, lease.fence) as (connection, _):
        unfinished = {edit.id for edit in _unfinished_edits(connection, job.edit_ids)}
        write_statuses(
            connection, context, [change for change in changes if change.edit_id in unfinished], author=SERVICE, job_id=job.id
        )
        jobs.finish(connection, job.id, now=context.clock())
    context.announcer.announce(job.edit_ids)


def _narrow(connection: Connection, context: EditingContext, job: Job) -> None:
    half = (len(job.edit_ids) + 1) // 2
    remaining = _unfinished_edits(connection, job.edit_ids[half:])
    write_statuses(
        connection,
        context,
        [StatusChange(edit_id=edit.id, status=EditStatus.QUEUED) for edit in remaining],
        author=SERVICE,
        job_id=job.id,
    )
    jobs.update(connection, job.id, edit_ids=job.edit_ids[:half])


def _unfinished_edits(connection: Connection, edit_ids: Sequence[str]) -> list[Edit]:
    """The edits of a job that are still `applying`."""
    return [edit for edit in edits.read_many(connection, edit_ids) if edit.status is EditStatus.APPLYING]


def _requeue(connection: Connection, context: EditingContext, job: Job) -> None:
    """Cancel a job and queue its edits again. Edits that were retracted meanwhile become `retracted`."""
    unfinished = _unfinished_edits(connection, job.edit_ids)
    changes = [StatusChange(edit_id=edit.id, status=EditStatus.QUEUED) for edit in unfinished]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.append_to_log(connection, job.id, "gave way to smaller edits", context.clock())
    jobs.update(connection, job.id, status="cancelled", finished_at=context.clock())


def _defer(connection: Connection, context: EditingContext, job: Job, reason: str) -> None:
    unfinished = _unfinished_edits(connection, job.edit_ids)
    changes = [defer(edit.id, reason, tried_on=job.parent) for edit in unfinished]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.finish(connection, job.id, error=reason, now=context.clock())


def _fail(connection: Connection, context: EditingContext, job: Job, reason: str) -> None:
    unfinished = _unfinished_edits(connection, job.edit_ids)
    changes = [StatusChange(edit_id=edit.id, status=EditStatus.FAILED, error=reason) for edit in unfinished]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.finish(connection, job.id, error=reason, now=context.clock())


def _new_job(connection: Connection, context: EditingContext, claimed: Sequence[Edit]) -> Job:
    ids = [edit.id for edit in claimed]
    return jobs.insert(connection, "apply", edit_ids=ids, reason=None, author=claimed[-1].author, now=context.clock())


def _lost_figures(lost: Collection[str]) -> dict[str, Any]:
    """The figure of live edits that a fit would have lost; none if it lost none."""
    return {"lost": {"value": len(lost), "limit": 0}} if lost else {}
