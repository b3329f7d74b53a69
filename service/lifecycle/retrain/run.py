"""Retraining: LocFT-BF over a snapshot of the live set, beside the head, while edits go on being applied.

A *major* retrain starts from the base, a *minor* one from the tensors of the head. The result counts only if every edit of the
snapshot is still wanted or a newer one of its fact is live, and a minor one only if the head still has the tensors it began at:
otherwise it is trained again, never published, so that no published retrain was trained on an edit that had been taken back.
Whatever ends a retrain without a publication leaves the head as it was, and says why in its job.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain.errors import Refused, Stale, Unavailable
from service.domain.liveset import LiveSet
from service.editors.protocol import FitCancelled, FitResult
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.fitting import items_of, read_fit_edits
from service.lifecycle.head_snapshot import read_head
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.retrain import snapshots
from service.lifecycle.retrain.catch_up import NewcomersRefused, SnapshotOutdated, catch_up_and_publish
from service.lifecycle.retrain.newcomers import NewcomerSearch
from service.lifecycle.retrain.retries import wait_to_publish
from service.lifecycle.retrain.snapshots import RetrainPlan
from service.store.heads import FenceLost
from service.store.jobs import Job

ELSEWHERE = "the head's tensors lie elsewhere than the settings name: it has to be a major one"
TRAINED = 0.9  # of the progress, when what is live beyond the snapshot is still to be fitted
NOTHING_LEFT = "nothing is left to train on, and nothing to undo"
CHANGED = "the head or edits of its snapshot changed again and again"


class ApplyPause:
    """Says that a retrain that is about to be published lost too often to edits: while it is set, edits are accepted but not
    applied.
    """

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
class RetrainCounters:
    """How often the retrain of one job had to begin again, and how often its publication lost to another."""

    restarts: int = 0
    losses: int = 0
    newcomers: NewcomerSearch = field(default_factory=NewcomerSearch)


def retrain(context: LifecycleContext, lease: Lease, pressed: ApplyPause) -> bool:
    """Do the retrain that is queued or was left unfinished; whether there was one. Ends published, or failed or cancelled with
    a reason in its row.
    """
    job = snapshots.claim(context, lease)
    if job is None:
        return False
    tries = RetrainCounters()
    try:
        while job is not None and job.status == "running":
            if _once(context, lease, job, tries, pressed):
                break
            job = _begin_again(context, lease, tries)
    except FitCancelled:
        if lease.is_over() or not snapshots.end_if_cancelled(context, lease):
            raise
    return True


def _begin_again(context: LifecycleContext, lease: Lease, tries: RetrainCounters) -> Job | None:
    """Another snapshot for the running job; if this happened too often, the job fails."""
    tries.restarts += 1
    if tries.restarts > context.settings.restarts:
        snapshots.fail(context, lease, CHANGED)
        return None
    return snapshots.replace_snapshot(context, lease, tries.newcomers.put_off)


def _once(context: LifecycleContext, lease: Lease, job: Job, tries: RetrainCounters, pressed: ApplyPause) -> bool:
    """Train on the job's snapshot and publish; False if the head moved away from it meanwhile, so that it has to begin again."""
    is_cancelled = snapshots.cancel_check(context, job)
    job_hooks = JobHooks(context, lease, job.id, "retrain.middle", yields_to_edits=True, is_stop_requested=is_cancelled)
    plan = snapshots.read_plan(context, job)
    if not plan.items and not read_head(context).live_set.items:  # a rollback to the base came first
        snapshots.fail(context, lease, NOTHING_LEFT)
        return True
    try:
        trained = _train(context, job, plan, job_hooks)
    except Refused as refused:
        if plan.mode == "minor" and refused.field == "start":
            snapshots.change_to_major(context, lease, ELSEWHERE)
            return False
        raise
    crash_point("retrain.before_publish")
    while True:
        try:
            return _publish(context, lease, job, plan, trained, job_hooks, tries, pressed, is_cancelled)
        except SnapshotOutdated as again:
            snapshots.append_log(context, job, again.reason)
            return False
        except NewcomersRefused as refused:
            tries.newcomers.narrow(context, job, refused.newcomers, str(refused))
            return False
        except (Unavailable, OSError) as error:  # what was trained is good: only its publication has to be tried again
            if not wait_to_publish(context, lease, error, job_hooks.hooks()):
                return True


def _train(context: LifecycleContext, job: Job, plan: RetrainPlan, job_hooks: JobHooks) -> FitResult | None:
    if not plan.items:
        return None
    known = read_fit_edits(context, LiveSet(), [item.edit_id for item in plan.items])
    assert job.seed is not None
    trained = context.editors.locft(
        items_of(plan.items, known), plan.start, job.seed, job_hooks.hooks().scale_progress(0.0, TRAINED)
    )
    snapshots.append_log(context, job, f"trained on {len(plan.items)} edits: {_said(trained)}")
    return trained


def _said(trained: FitResult) -> str:
    figures = [
        f"{name.replace('_', ' ')} {f'{value:.3f}' if isinstance(value, float) else value}"
        for name, value in sorted(trained.scores.items())
    ]
    return ", ".join([*figures, f"{len(trained.lost)} not taken"])


def _publish(
    context: LifecycleContext,
    lease: Lease,
    job: Job,
    plan: RetrainPlan,
    trained: FitResult | None,
    job_hooks: JobHooks,
    tries: RetrainCounters,
    pressed: ApplyPause,
    is_cancelled: Callable[[], bool],
) -> bool:
    """Catch up with the head and publish on it, as often as it moves; False if that will not do any more.

    Applying pauses once this was lost too often, and goes on before anything else is trained.
    """
    try:
        while snapshots.is_publishable(context, job, plan, head := read_head(context)):
            if tries.losses >= context.settings.patience:
                pressed.set()
            try:
                if catch_up_and_publish(context, lease, job, plan, trained, job_hooks, head):
                    tries.newcomers.end(context, lease, job)
                return True
            except FenceLost:
                raise
            except Stale:
                if is_cancelled():
                    raise FitCancelled("the retrain was cancelled") from None
                tries.losses += 1
                if tries.losses > context.settings.restarts:
                    tries.restarts = context.settings.restarts  # the next one is one too many
                    return False
    finally:
        pressed.clear()
    raise SnapshotOutdated("an edit of the snapshot left the live set, or the head got other tensors")
