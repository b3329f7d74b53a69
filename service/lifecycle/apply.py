"""Applying: edits that wait together become one job. BaFT fits them on top of the head; then they are published or deferred.

The row of a job holds its edits, parent and seed, so that a worker that restarts repeats the job exactly. If the head moves
during the fit, the job is repeated on the new head. A fit stops as soon as one of its edits is retracted, and the job is
repeated without that edit. The fit of a large edit also gives way to small edits, and the large edit is queued again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from service.domain import acceptance, cadence, liveset
from service.domain.edit import Edit, EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import VersionKind
from service.editors.protocol import FitCancelled, FitOverdue, FitResult
from service.lifecycle import next_edits
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.fitting import items_of, read_fit_edits, scores_of, seed_of
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay, read_head
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import changes_of_live_sets, write_statuses
from service.store import edits, heads, jobs
from service.store.edits import StatusChange
from service.store.jobs import Job

LOST = "it was not taken by BaFT and waits for the next retrain"
LOSES_LIVE_EDITS = "with it, edits that are live would have been lost; it waits for the next retrain"
WINDOW_FULL = "the window is full; it waits for the next retrain"


@dataclass(frozen=True)
class ApplyOutcome:
    """The result of a job's rounds: the fit of `entrants` (None if none is left), the edits to defer with their reasons, and
    the edits to queue again.
    """

    fitted: FitResult | None
    live_set: LiveSet
    superseded: dict[str, str]
    entrants: tuple[LiveItem, ...]
    defer_reasons: dict[str, str]
    requeued_ids: tuple[str, ...] = ()


def apply(context: LifecycleContext, lease: Lease) -> bool:
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


def give_up_or_narrow(context: LifecycleContext, lease: Lease, reason: str, *, overdue: bool = False) -> None:
    """After a failed fit of the running job: requeue the newer half and keep the older half. A single edit is tried again with
    another seed, and fails after `attempts` fits. An overdue single edit is deferred: another fit would take as long, and a
    retrain trains it in another way.
    """
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
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


def _claim(context: LifecycleContext, lease: Lease) -> Job | None:
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        running = jobs.find_active(connection, "apply", "running")
        if running is not None and next_edits.gives_way(connection, context, running.edit_ids):
            _requeue(connection, context, running)
            running = None
        return _claim_new(connection, context, lease) if running is None else _reclaim(connection, context, lease, running)


def _claim_new(connection: Connection, context: LifecycleContext, lease: Lease) -> Job | None:
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
        write_statuses(connection, context, [_defer_change(edit.id, WINDOW_FULL) for edit in candidates], author=SERVICE)
        job = _new_job(connection, context, candidates)
        return jobs.update(connection, job.id, status="cancelled", finished_at=now)
    claimed = candidates[:room]
    job = _new_job(connection, context, claimed)
    write_statuses(
        connection,
        context,
        [StatusChange(edit_id=edit.id, status=EditStatus.APPLYING) for edit in claimed],
        author=SERVICE,
        job_id=job.id,
    )
    values = {"parent": heads.read(connection).version, "seed": seed_of(claimed), "fence": lease.fence}
    return jobs.update(connection, job.id, status="running", claims=1, started_at=now, **values)


def _reclaim(connection: Connection, context: LifecycleContext, lease: Lease, job: Job) -> Job:
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
    if job.claims >= context.settings.claims:
        _fail(connection, context, job, "its fit ended the process again and again")
        return jobs.get(connection, job.id)
    head = heads.read(connection)
    ids = [edit.id for edit in claimed]
    repeated = job.fence != lease.fence
    values = {"parent": head.version, "seed": seed_of(claimed, job.failures), "fence": lease.fence}
    return jobs.update(connection, job.id, edit_ids=ids, claims=job.claims + int(repeated), **values)


def _run_job(context: LifecycleContext, lease: Lease, job: Job) -> None:
    head = read_head(context)
    job_hooks = JobHooks(
        context,
        lease,
        job.id,
        "fit.middle",
        is_stale=lambda: context.follower.current.epoch > head.row.epoch,
        is_stop_requested=lambda: _should_stop(context, job),
        limit_s=context.settings.fit_s,
    )
    known = read_fit_edits(context, LiveSet(), job.edit_ids)
    try:
        with context.edit_fits_idle.busy():
            outcome = _rounds(context, head, [known[edit_id] for edit_id in job.edit_ids], job, job_hooks)
    except FitCancelled:
        if job_hooks.is_overdue and not lease.is_over():
            raise FitOverdue(f"its fit took longer than {context.settings.fit_s:g} seconds") from None
        raise
    changes = [_defer_change(edit_id, reason) for edit_id, reason in outcome.defer_reasons.items()]
    changes += [StatusChange(edit_id=edit_id, status=EditStatus.QUEUED) for edit_id in outcome.requeued_ids]
    if outcome.fitted is None:
        _finish_unpublished(context, lease, job, changes, outcome)
        return
    with context.store.read() as connection:
        superseded_deferred = edits.find_outdated_deferred(connection, outcome.entrants)
    superseded = {**superseded_deferred, **outcome.superseded}
    changes += changes_of_live_sets(head.live_set, outcome.live_set, superseded=superseded, reports=outcome.fitted.reports)
    entrant_ids = [item.edit_id for item in outcome.entrants]
    publish(
        context,
        Candidate(
            parent=head.row,
            fence=lease.fence,
            kind=VersionKind.BAFT,
            overlay=outcome.fitted.overlay,
            live_set=outcome.live_set,
            changes=changes,
            author=known[entrant_ids[-1]].author,
            scores=scores_of(outcome.fitted, outcome.live_set),
            job_id=job.id,
            required_edits=job.edit_ids,
            item_count=len(outcome.live_set.window) + len(outcome.live_set.consolidated_sample),
        ),
    )


def _should_stop(context: LifecycleContext, job: Job) -> bool:
    """Whether a running fit is for nothing, or holds up smaller edits."""
    with context.store.read() as connection:
        return bool(edits.find_retracted(connection, job.edit_ids)) or next_edits.gives_way(connection, context, job.edit_ids)


def _rounds(
    context: LifecycleContext, head: HeadSnapshot, job_edits: Sequence[Edit], job: Job, job_hooks: JobHooks
) -> ApplyOutcome:
    """Fit until nothing is lost. A round leaves out the new edits that were lost; if live edits were lost, it leaves out the
    newest new edit; if the fit was not accepted, it leaves out the newer half.

    Each round depends on the job and its parent alone, so that a repetition takes the same way. After the last round the fit is
    published if it lost new edits only: these edits are deferred, and the live set records that the window was trained on them.
    """
    with context.store.read() as connection:
        entrants = {item.edit_id: item for item in edits.read_items(connection, [edit.id for edit in job_edits])}
    defer_reasons: dict[str, str] = {}
    requeued_ids: tuple[str, ...] = ()
    rounds = 0
    while rounds < context.settings.rounds:
        candidates = [item for edit_id, item in entrants.items() if edit_id not in defer_reasons and edit_id not in requeued_ids]
        live_set, superseded = liveset.apply(head.live_set, candidates)
        new = tuple(item for item in live_set.window if item.is_live and item.edit_id in entrants)
        if not new:
            return ApplyOutcome(None, live_set, superseded, (), defer_reasons, requeued_ids)
        fitted = _fit(context, head, live_set, new, job, job_hooks)
        lost_new = [item for item in new if item.edit_id in fitted.lost]
        expected_lost = {item.edit_id for item in new} | set(head.version.scores.get("lost", ()))
        lost_old = [edit_id for edit_id in fitted.lost if edit_id not in expected_lost]
        refusal = _refusal(context, head, fitted, len(new))
        rounds += int(bool(fitted.lost))
        if lost_new:
            defer_reasons |= {item.edit_id: LOST for item in lost_new}
            is_last = rounds == context.settings.rounds and not lost_old and not refusal
            partial = _live_set_without(head, candidates, lost_new) if is_last else None
            if partial is not None and partial[0].ids <= live_set.ids:
                new = tuple(item for item in new if item not in lost_new)
                return ApplyOutcome(fitted, liveset.mark_lost(partial[0], lost_new), partial[1], new, defer_reasons, requeued_ids)
        elif lost_old:
            defer_reasons[new[-1].edit_id] = LOSES_LIVE_EDITS
        elif refusal and len(new) > 1:
            requeued_ids += tuple(item.edit_id for item in new[len(new) // 2 :])
        elif refusal:
            defer_reasons[new[0].edit_id] = f"{refusal}; it waits for the next retrain"
        else:
            return ApplyOutcome(fitted, live_set, superseded, new, defer_reasons, requeued_ids)
    defer_reasons |= {edit_id: LOST for edit_id in entrants if edit_id not in defer_reasons and edit_id not in requeued_ids}
    return ApplyOutcome(None, head.live_set, {}, (), defer_reasons, requeued_ids)


def _live_set_without(
    head: HeadSnapshot, candidates: Sequence[LiveItem], lost: Sequence[LiveItem]
) -> tuple[LiveSet, dict[str, str]]:
    """The live set without some of the new edits, and the edits that the others supersede."""
    return liveset.apply(head.live_set, [item for item in candidates if item not in lost])


def _fit(
    context: LifecycleContext, head: HeadSnapshot, live_set: LiveSet, new: Sequence[LiveItem], job: Job, job_hooks: JobHooks
) -> FitResult:
    known = read_fit_edits(context, live_set)
    new_ids = {item.edit_id for item in new}
    window = [item for item in live_set.window if item.edit_id not in new_ids]
    overlay = load_head_overlay(context, head.version)
    assert job.seed is not None
    replay = items_of([*window, *live_set.consolidated_sample], known)
    return context.editors.baft(overlay, items_of(new, known), replay, job.seed, job_hooks.hooks())


def _refusal(context: LifecycleContext, head: HeadSnapshot, fitted: FitResult, new: int) -> str | None:
    """Why a fit is not accepted, or None."""
    decision = acceptance.judge_scores(fitted.scores, head.version.scores, edits=new, limits=context.settings.acceptance)
    return None if decision.is_accepted else "; ".join(decision.reasons)


def _finish_unpublished(
    context: LifecycleContext, lease: Lease, job: Job, changes: list[StatusChange], outcome: ApplyOutcome
) -> None:
    """End a job that publishes nothing: each of its edits was deferred, queued again, or is older than a live edit of the same
    fact.
    """
    changes = changes + [
        StatusChange(edit_id=old, status=EditStatus.SUPERSEDED, superseded_by=new)
        for old, new in outcome.superseded.items()
        if old in job.edit_ids
    ]
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        unfinished = {edit.id for edit in _unfinished_edits(connection, job.edit_ids)}
        write_statuses(
            connection, context, [change for change in changes if change.edit_id in unfinished], author=SERVICE, job_id=job.id
        )
        jobs.finish(connection, job.id, now=context.clock())
    context.announcer.announce(job.edit_ids)


def _narrow(connection: Connection, context: LifecycleContext, job: Job) -> None:
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


def _requeue(connection: Connection, context: LifecycleContext, job: Job) -> None:
    """Cancel a job and queue its edits again. Edits that were retracted meanwhile become `retracted`."""
    unfinished = _unfinished_edits(connection, job.edit_ids)
    changes = [StatusChange(edit_id=edit.id, status=EditStatus.QUEUED) for edit in unfinished]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.append_to_log(connection, job.id, "gave way to smaller edits", context.clock())
    jobs.update(connection, job.id, status="cancelled", finished_at=context.clock())


def _defer(connection: Connection, context: LifecycleContext, job: Job, reason: str) -> None:
    unfinished = _unfinished_edits(connection, job.edit_ids)
    write_statuses(connection, context, [_defer_change(edit.id, reason) for edit in unfinished], author=SERVICE, job_id=job.id)
    jobs.finish(connection, job.id, error=reason, now=context.clock())


def _fail(connection: Connection, context: LifecycleContext, job: Job, reason: str) -> None:
    unfinished = _unfinished_edits(connection, job.edit_ids)
    changes = [StatusChange(edit_id=edit.id, status=EditStatus.FAILED, error=reason) for edit in unfinished]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.finish(connection, job.id, error=reason, now=context.clock())


def _new_job(connection: Connection, context: LifecycleContext, claimed: Sequence[Edit]) -> Job:
    ids = [edit.id for edit in claimed]
    return jobs.insert(connection, "apply", edit_ids=ids, reason=None, author=claimed[-1].author, now=context.clock())


def _defer_change(edit_id: str, reason: str) -> StatusChange:
    return StatusChange(edit_id=edit_id, status=EditStatus.DEFERRED, error=reason)
