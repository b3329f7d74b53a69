"""Applying: edits that wait together become one job, are fitted by BaFT on top of the head, and are published or deferred.

A job's row holds its edits, parent and seed, so a worker that dies and comes back repeats exactly that job. If the head moved
meanwhile the job is repeated on the new head. A fit stops as soon as one of its edits is taken back, and the job is repeated
without that; the fit of a large edit also for the sake of small ones, and then the edit waits for another turn.
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

NOT_TAKEN = "it was not taken by BaFT and waits for the next retrain"
COSTS_OTHERS = "with it, edits that are live would have been lost; it waits for the next retrain"
WINDOW_FULL = "the window is full; it waits for the next retrain"


@dataclass(frozen=True)
class ApplyOutcome:
    """What the rounds of one job came to: a fit of `entrants` (None if none is left), edits to defer, and edits to try later."""

    fitted: FitResult | None
    live_set: LiveSet
    superseded: dict[str, str]
    entrants: tuple[LiveItem, ...]
    deferred: dict[str, str]
    later: tuple[str, ...] = ()


def apply(context: LifecycleContext, lease: Lease) -> bool:
    """Do the next job of applying; whether there was anything to do.

    Raises Stale if the head moved or an edit was taken back during the fit: then the job stays, to be repeated.
    """
    job = _claim(context, lease)
    if job is None:
        return False
    crash_point("claim.after_commit")
    if job.status == "running":
        _work(context, lease, job)
    return True


def give_up_or_narrow(context: LifecycleContext, lease: Lease, reason: str, *, overdue: bool = False) -> None:
    """After a fit of the running job failed: try its older half alone; a single edit is tried again, with another seed, and
    then fails. One that took too long is deferred: it would take as long again, and a retrain goes at it another way.
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
            _put_back(connection, context, running)
            running = None
        return _claim_new(connection, context, lease) if running is None else _claim_again(connection, context, lease, running)


def _claim_new(connection: Connection, context: LifecycleContext, lease: Lease) -> Job | None:
    waiting = edits.read_many(connection, next_edits.read_next_edits(connection, context))
    if not waiting:
        return None
    now = context.clock()
    rules = context.settings.cadence
    standing = read_cadence_inputs(connection, context)
    room = cadence.free_window_places(standing, rules)
    if room == 0:
        if not cadence.is_full_window_deferring(standing, rules):
            return None
        write_statuses(connection, context, [_deferred(edit.id, WINDOW_FULL) for edit in waiting], author=SERVICE)
        job = _new_job(connection, context, waiting)
        return jobs.update(connection, job.id, status="cancelled", finished_at=now)
    taken = waiting[:room]
    job = _new_job(connection, context, taken)
    write_statuses(
        connection,
        context,
        [StatusChange(edit_id=edit.id, status=EditStatus.APPLYING) for edit in taken],
        author=SERVICE,
        job_id=job.id,
    )
    values = {"parent": heads.read(connection).version, "seed": seed_of(taken), "fence": lease.fence}
    return jobs.update(connection, job.id, status="running", claims=1, started_at=now, **values)


def _claim_again(connection: Connection, context: LifecycleContext, lease: Lease, job: Job) -> Job:
    """Take up a job that a worker left: as it was, less edits taken back since, and on the head of now."""
    now = context.clock()
    asked = edits.find_retracted(connection, job.edit_ids)
    found = [edit for edit in edits.read_many(connection, job.edit_ids) if edit.status is EditStatus.APPLYING]
    gone = [StatusChange(edit_id=edit.id, status=EditStatus.RETRACTED) for edit in found if edit.id in asked]
    write_statuses(connection, context, gone, author=SERVICE, job_id=job.id)
    taken = [edit for edit in found if edit.id not in asked]
    if not taken:
        jobs.update(connection, job.id, status="cancelled", finished_at=now)
        return jobs.get(connection, job.id)
    if job.claims >= context.settings.claims:
        _fail(connection, context, job, "its fit ended the process again and again")
        return jobs.get(connection, job.id)
    head = heads.read(connection)
    ids = [edit.id for edit in taken]
    repeated = job.fence != lease.fence
    values = {"parent": head.version, "seed": seed_of(taken, job.failures), "fence": lease.fence}
    return jobs.update(connection, job.id, edit_ids=ids, claims=job.claims + int(repeated), **values)


def _work(context: LifecycleContext, lease: Lease, job: Job) -> None:
    head = read_head(context)
    job_hooks = JobHooks(
        context,
        lease,
        job.id,
        "fit.middle",
        is_stale=lambda: context.follower.current.epoch > head.row.epoch,
        is_stop_requested=lambda: _is_unwanted(context, job),
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
    changes = [_deferred(edit_id, reason) for edit_id, reason in outcome.deferred.items()]
    changes += [StatusChange(edit_id=edit_id, status=EditStatus.QUEUED) for edit_id in outcome.later]
    if outcome.fitted is None:
        _finish_unpublished(context, lease, job, changes, outcome)
        return
    with context.store.read() as connection:
        pointless = edits.find_outdated_deferred(connection, outcome.entrants)
    superseded = {**pointless, **outcome.superseded}
    changes += changes_of_live_sets(head.live_set, outcome.live_set, superseded=superseded, reports=outcome.fitted.reports)
    entered = [item.edit_id for item in outcome.entrants]
    publish(
        context,
        Candidate(
            parent=head.row,
            fence=lease.fence,
            kind=VersionKind.BAFT,
            overlay=outcome.fitted.overlay,
            live_set=outcome.live_set,
            changes=changes,
            author=known[entered[-1]].author,
            scores=scores_of(outcome.fitted, outcome.live_set),
            job_id=job.id,
            required_edits=job.edit_ids,
            asked=len(outcome.live_set.window) + len(outcome.live_set.consolidated_sample),
        ),
    )


def _is_unwanted(context: LifecycleContext, job: Job) -> bool:
    """Whether a fit under way would be for nothing, or holds up what it should not."""
    with context.store.read() as connection:
        return bool(edits.find_retracted(connection, job.edit_ids)) or next_edits.gives_way(connection, context, job.edit_ids)


def _rounds(context: LifecycleContext, head: HeadSnapshot, asked: Sequence[Edit], job: Job, job_hooks: JobHooks) -> ApplyOutcome:
    """Fit until nothing is lost: what was not taken is left out; if live edits were lost the newest of the new is; and so on.

    Every round depends only on the job and its parent, so a repetition takes the same way. After the last round the fit counts as
    it is, if it lost none but new edits: these wait for the next retrain, and the live set keeps that the window learned of them.
    """
    with context.store.read() as connection:
        entrants = {item.edit_id: item for item in edits.read_items(connection, [edit.id for edit in asked])}
    deferred: dict[str, str] = {}
    later: tuple[str, ...] = ()
    rounds = 0
    while rounds < context.settings.rounds:
        trying = [item for edit_id, item in entrants.items() if edit_id not in deferred and edit_id not in later]
        live_set, superseded = liveset.apply(head.live_set, trying)
        new = tuple(item for item in live_set.window if item.is_live and item.edit_id in entrants)
        if not new:
            return ApplyOutcome(None, live_set, superseded, (), deferred, later)
        fitted = _fit(context, head, live_set, new, job, job_hooks)
        lost_new = [item for item in new if item.edit_id in fitted.lost]
        known_lost = {item.edit_id for item in new} | set(head.version.scores.get("lost", ()))
        lost_old = [edit_id for edit_id in fitted.lost if edit_id not in known_lost]
        refused = _judge(context, head, fitted, len(new))
        rounds += int(bool(fitted.lost))
        if lost_new:
            deferred |= {item.edit_id: NOT_TAKEN for item in lost_new}
            last = rounds == context.settings.rounds and not lost_old and not refused
            kept = _without(head, trying, lost_new) if last else None
            if kept is not None and kept[0].ids <= live_set.ids:
                new = tuple(item for item in new if item not in lost_new)
                return ApplyOutcome(fitted, liveset.mark_lost(kept[0], lost_new), kept[1], new, deferred, later)
        elif lost_old:
            deferred[new[-1].edit_id] = COSTS_OTHERS
        elif refused and len(new) > 1:
            later += tuple(item.edit_id for item in new[len(new) // 2 :])
        elif refused:
            deferred[new[0].edit_id] = f"{refused}; it waits for the next retrain"
        else:
            return ApplyOutcome(fitted, live_set, superseded, new, deferred, later)
    deferred |= {edit_id: NOT_TAKEN for edit_id in entrants if edit_id not in deferred and edit_id not in later}
    return ApplyOutcome(None, head.live_set, {}, (), deferred, later)


def _without(head: HeadSnapshot, trying: Sequence[LiveItem], lost: Sequence[LiveItem]) -> tuple[LiveSet, dict[str, str]]:
    """What the live set is, and what is superseded, if some of the new edits do not join."""
    return liveset.apply(head.live_set, [item for item in trying if item not in lost])


def _fit(
    context: LifecycleContext, head: HeadSnapshot, live_set: LiveSet, new: Sequence[LiveItem], job: Job, job_hooks: JobHooks
) -> FitResult:
    known = read_fit_edits(context, live_set)
    entering = {item.edit_id for item in new}
    window = [item for item in live_set.window if item.edit_id not in entering]
    overlay = load_head_overlay(context, head.version)
    assert job.seed is not None
    kept = items_of([*window, *live_set.consolidated_sample], known)
    return context.editors.baft(overlay, items_of(new, known), kept, job.seed, job_hooks.hooks())


def _judge(context: LifecycleContext, head: HeadSnapshot, fitted: FitResult, new: int) -> str | None:
    """Why a fit is not accepted, or None."""
    decision = acceptance.judge_scores(fitted.scores, head.version.scores, edits=new, limits=context.settings.acceptance)
    return None if decision.is_accepted else "; ".join(decision.reasons)


def _finish_unpublished(
    context: LifecycleContext, lease: Lease, job: Job, changes: list[StatusChange], outcome: ApplyOutcome
) -> None:
    """End a job that publishes nothing: everything in it was deferred, put off, or older than what is live."""
    changes = changes + [
        StatusChange(edit_id=old, status=EditStatus.SUPERSEDED, superseded_by=new)
        for old, new in outcome.superseded.items()
        if old in job.edit_ids
    ]
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        standing = {edit.id for edit in _standing(connection, job.edit_ids)}
        write_statuses(
            connection, context, [change for change in changes if change.edit_id in standing], author=SERVICE, job_id=job.id
        )
        jobs.finish(connection, job.id, now=context.clock())
    context.announcer.announce(job.edit_ids)


def _narrow(connection: Connection, context: LifecycleContext, job: Job) -> None:
    half = (len(job.edit_ids) + 1) // 2
    put_off = _standing(connection, job.edit_ids[half:])
    write_statuses(
        connection,
        context,
        [StatusChange(edit_id=edit.id, status=EditStatus.QUEUED) for edit in put_off],
        author=SERVICE,
        job_id=job.id,
    )
    jobs.update(connection, job.id, edit_ids=job.edit_ids[:half])


def _standing(connection: Connection, edit_ids: Sequence[str]) -> list[Edit]:
    """Those of a job's edits that it still has to bring to an end."""
    return [edit for edit in edits.read_many(connection, edit_ids) if edit.status is EditStatus.APPLYING]


def _put_back(connection: Connection, context: LifecycleContext, job: Job) -> None:
    """Let the edits of a job wait again; those that were taken back meanwhile are."""
    standing = _standing(connection, job.edit_ids)
    changes = [StatusChange(edit_id=edit.id, status=EditStatus.QUEUED) for edit in standing]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.append_to_log(connection, job.id, "gave way to smaller edits", context.clock())
    jobs.update(connection, job.id, status="cancelled", finished_at=context.clock())


def _defer(connection: Connection, context: LifecycleContext, job: Job, reason: str) -> None:
    standing = _standing(connection, job.edit_ids)
    write_statuses(connection, context, [_deferred(edit.id, reason) for edit in standing], author=SERVICE, job_id=job.id)
    jobs.finish(connection, job.id, error=reason, now=context.clock())


def _fail(connection: Connection, context: LifecycleContext, job: Job, reason: str) -> None:
    standing = _standing(connection, job.edit_ids)
    changes = [StatusChange(edit_id=edit.id, status=EditStatus.FAILED, error=reason) for edit in standing]
    write_statuses(connection, context, changes, author=SERVICE, job_id=job.id)
    jobs.finish(connection, job.id, error=reason, now=context.clock())


def _new_job(connection: Connection, context: LifecycleContext, taken: Sequence[Edit]) -> Job:
    ids = [edit.id for edit in taken]
    return jobs.insert(connection, "apply", edit_ids=ids, reason=None, author=taken[-1].author, now=context.clock())


def _deferred(edit_id: str, reason: str) -> StatusChange:
    return StatusChange(edit_id=edit_id, status=EditStatus.DEFERRED, error=reason)
