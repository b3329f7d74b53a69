"""Refitting the window from the tensors alone, so that the overlay says again what its rows say: after a retraction or a
rollback.

An edit taken back leaves the window; one in the tensors gets a tombstone, a BaFT item towards the base's own answer. So does one
that was taken back after a fit had lost it.
"""

from collections.abc import Mapping

from sqlalchemy.engine import Connection

from service.domain import liveset
from service.domain.edit import Edit, EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import VersionKind
from service.editors.protocol import FitResult
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fitting import items_of, read_fit_edits, scores_of, seed_of
from service.lifecycle.head_snapshot import HeadSnapshot, load_head_overlay, read_head
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.settings import SERVICE
from service.lifecycle.statuses import changes_of_live_sets
from service.lm.overlay import Overlay
from service.store import edits, heads, jobs, versions
from service.store.edits import StatusChange
from service.store.jobs import Job

LOST = "it was lost when the window was fitted again without a retracted edit; it waits for the next retrain"


def refit(context: LifecycleContext, lease: Lease) -> bool:
    """Do the refit that is due, if one is; whether one was. Raises Stale if the head moved: then it stays due."""
    job = _claim(context, lease)
    if job is None:
        return False
    if job.status == "running":
        _work(context, lease, job)
    return True


def give_up_or_retry(context: LifecycleContext, lease: Lease, kind: str, reason: str) -> None:
    """After a fit of the running job of a kind failed: count it, and end the job once it failed too often."""
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        job = jobs.find_active(connection, kind, "running")
        if job is None:
            return
        jobs.append_to_log(connection, job.id, f"attempt {job.failures + 1} failed: {reason}", context.clock())
        jobs.update(connection, job.id, failures=job.failures + 1)
        if job.failures + 1 >= context.settings.attempts:
            jobs.finish(connection, job.id, error=reason, now=context.clock())


def is_due(connection: Connection, context: LifecycleContext) -> bool:
    """Whether live edits wait to be taken back, or the head's overlay says more than its rows; unless this failed on this head
    a moment ago.
    """
    head = heads.read(connection)
    if _failed_lately(connection, context, head.version):
        return False
    live_set = versions.read_live_set(connection, head.version)
    return (
        live_set.needs_refit
        or bool(read_pending_retractions(connection, live_set))
        or bool(read_lost_retractions(connection, live_set))
    )


def _failed_lately(connection: Connection, context: LifecycleContext, version: int) -> bool:
    last = next(iter(jobs.read_page(connection, limit=1, kind="refit", brief=True)), None)
    if last is None or last.status != "failed" or last.parent != version or last.finished_at is None:
        return False
    return (context.clock() - last.finished_at).total_seconds() < context.settings.cadence.retry_s


def read_pending_retractions(connection: Connection, live_set: LiveSet) -> dict[str, bool]:
    """Live edits that were asked to be taken back: {id: whether the edit before it shall be live again}."""
    pending = edits.read_pending_retractions(connection)
    return {edit_id: pending[edit_id] for edit_id in pending if (item := live_set.get(edit_id)) is not None and item.is_live}


def read_lost_retractions(connection: Connection, live_set: LiveSet) -> set[str]:
    """Edits that the overlay was trained on and lost, that were taken back since, and that nothing live covers."""
    lost = [item.edit_id for item in live_set.lost if item.key not in live_set.live_keys]
    return edits.find_retracted(connection, lost) if lost else set()


def _claim(context: LifecycleContext, lease: Lease) -> Job | None:
    with context.store.write() as connection:
        head = heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        now = context.clock()
        job = jobs.find_active(connection, "refit")
        if not is_due(connection, context):
            return job and jobs.update(connection, job.id, status="cancelled", finished_at=now)
        if job is None:
            job = jobs.insert(connection, "refit", reason="the overlay holds what was taken back", author=SERVICE, now=now)
        live_set = versions.read_live_set(connection, head.version)
        gone = sorted({*read_pending_retractions(connection, live_set), *read_lost_retractions(connection, live_set)})
        if job.claims >= context.settings.claims:
            jobs.finish(connection, job.id, error="its fit ended the process again and again", now=now)
            return jobs.get(connection, job.id)
        repeated = job.fence != lease.fence or job.status == "queued"
        values = {"edit_ids": gone, "parent": head.version, "fence": lease.fence, "claims": job.claims + int(repeated)}
        return jobs.update(connection, job.id, status="running", started_at=job.started_at or now, **values)


def _work(context: LifecycleContext, lease: Lease, job: Job) -> None:
    head = read_head(context)
    with context.store.read() as connection:
        gone = read_pending_retractions(connection, head.live_set)
        traces = read_lost_retractions(connection, head.live_set)
        restored = read_restored_items(connection, gone)
    job_hooks = JobHooks(context, lease, job.id, "fit.middle", is_stale=lambda: context.follower.current.epoch > head.row.epoch)
    desired = liveset.refit(head.live_set, {*gone, *traces}, restored)
    known = read_fit_edits(context, desired, [item.edit_id for item in desired.items if not item.is_live])  # some may be entombed
    with context.edit_fits_idle.busy():
        overlay, live_set, lost, fitted = _rounds(context, head, desired, known, job, job_hooks)
    changes = [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in gone]
    changes += [StatusChange(edit_id=edit_id, status=EditStatus.DEFERRED, error=LOST) for edit_id in lost]
    changes += changes_of_live_sets(head.live_set, live_set, superseded={}, reports={})
    publish(
        context,
        Candidate(
            parent=head.row,
            fence=lease.fence,
            kind=VersionKind.RETRACT,
            overlay=overlay,
            live_set=live_set,
            changes=changes,
            author=job.author,
            reason=job.reason,
            scores=scores_of(fitted, live_set),
            job_id=job.id,
            asked=len(live_set.window) + len(live_set.consolidated_sample) if fitted is not None else 0,
            required_edits=[item.edit_id for item in restored],
        ),
    )


def read_restored_items(connection: Connection, gone: Mapping[str, bool]) -> list[LiveItem]:
    """The edits that those taken back superseded and whose return was asked for, where they still count as superseded by them.

    Where such an edit was taken back too, the one before it.
    """
    newer = [edit_id for edit_id, restore in gone.items() if restore]
    back: list[str] = []
    while newer:
        older = [edit.supersedes for edit in edits.read_many(connection, newer) if edit.supersedes is not None]
        found = [
            edit.id
            for edit in edits.read_many(connection, older)
            if edit.status is EditStatus.SUPERSEDED and edit.superseded_by in newer
        ]
        asked = edits.find_retracted(connection, found)
        back += [edit_id for edit_id in found if edit_id not in asked]
        newer = [edit_id for edit_id in found if edit_id in asked]
    return edits.read_items(connection, back)


def _rounds(
    context: LifecycleContext, head: HeadSnapshot, desired: LiveSet, known: Mapping[str, Edit], job: Job, job_hooks: JobHooks
) -> tuple[Overlay, LiveSet, list[str], FitResult | None]:
    """Fit the window until nothing live is lost; what is lost is left out. A retraction is never held up by it.

    The last fit counts as it is: what it lost is not live any more, and the live set keeps that the overlay was trained on it.
    """
    bare = Overlay(load_head_overlay(context, head.version).tensors, None)
    lost: list[str] = []
    for _ in range(context.settings.rounds):
        desired = liveset.reset_window(desired)
        desired = liveset.set_tombstone_answers(desired, _answers(context, desired, known))
        if not desired.window:
            return bare, desired, lost, None
        asked = items_of(desired.window, known)
        seed = seed_of([item.edit for item in asked], job.failures)
        fitted = context.editors.baft(bare, asked, items_of(desired.consolidated_sample, known), seed, job_hooks.hooks())
        lost_now = [item for item in desired.window if item.is_live and item.edit_id in fitted.lost]
        if not lost_now:
            break
        lost += [item.edit_id for item in lost_now]
        desired = liveset.mark_lost(desired, lost_now)
    return fitted.overlay, desired, lost, fitted


def _answers(context: LifecycleContext, live_set: LiveSet, known: Mapping[str, Edit]) -> dict[str, str]:
    """What the base says to the prompts of tombstones that have no answer yet."""
    new = [item.edit_id for item in live_set.items if item.is_tombstone and item.answer is None]
    return {edit_id: context.editors.base_answer(known[edit_id]) for edit_id in new}
