"""Retraining: LocFT-BF over a snapshot of the live set, beside the head, while edits are still applied.

A *major* retrain starts from the base, a *minor* one from the head's tensors. The result is published only if every edit of the
snapshot may still be trained, or has a live successor; and a minor one only if the head still has the tensors that it started
from. Otherwise it is trained again, so that no published retrain was trained on an edit that had been retracted. A retrain that
ends without a publication leaves the head as it was, and its job holds the reason.
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

OTHER_LOCATION = "the head's tensors lie elsewhere than the settings name: it has to be a major one"
TRAINING_SHARE = 0.9  # of the progress; the rest is the catch-up
NOTHING_LEFT = "nothing is left to train on, and nothing to undo"
CHANGED_TOO_OFTEN = "the head or edits of its snapshot changed again and again"


class ApplyPause:
    """Set while a retrain that has lost too many publications to edits is about to be published. While it is set, edits are
    accepted and not applied.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask applying to pause."""
        self._event.set()

    def clear(self) -> None:
        """Let applying continue."""
        self._event.clear()


@dataclass
class RetrainCounters:
    """How often the retrain of one job began again, how often its publication lost to another, and its search among newcomers."""

    restarts: int = 0
    lost_publications: int = 0
    newcomers: NewcomerSearch = field(default_factory=NewcomerSearch)


def retrain(context: LifecycleContext, lease: Lease, apply_pause: ApplyPause) -> bool:
    """Do the retrain that is queued or was left unfinished; return whether there was one. It ends published, failed or
    cancelled, with the reason in its row.
    """
    job = snapshots.claim(context, lease)
    if job is None:
        return False
    counters = RetrainCounters()
    try:
        while job is not None and job.status == "running":
            if _train_and_publish(context, lease, job, counters, apply_pause):
                break
            job = _restart(context, lease, counters)
    except FitCancelled:
        if lease.is_over() or not snapshots.end_if_cancelled(context, lease):
            raise
    return True


def _restart(context: LifecycleContext, lease: Lease, counters: RetrainCounters) -> Job | None:
    """Give the running job another snapshot, or fail it after too many."""
    counters.restarts += 1
    if counters.restarts > context.settings.restarts:
        snapshots.fail(context, lease, CHANGED_TOO_OFTEN)
        return None
    return snapshots.replace_snapshot(context, lease, counters.newcomers.excluded_ids)


def _train_and_publish(
    context: LifecycleContext, lease: Lease, job: Job, counters: RetrainCounters, apply_pause: ApplyPause
) -> bool:
    """Train on the job's snapshot and publish. Return False if the head moved away from the snapshot meanwhile, so that the
    retrain has to begin again.
    """
    is_cancelled = snapshots.cancel_check(context, job)
    job_hooks = JobHooks(context, lease, job.id, "retrain.middle", yields_to_edits=True, is_stop_requested=is_cancelled)
    plan = snapshots.read_plan(context, job)
    if not plan.items and not read_head(context).live_set.items:  # after a rollback to the base
        snapshots.fail(context, lease, NOTHING_LEFT)
        return True
    try:
        trained = _train(context, job, plan, job_hooks)
    except Refused as refused:
        if plan.mode == "minor" and refused.field == "start":
            snapshots.change_to_major(context, lease, OTHER_LOCATION)
            return False
        raise
    crash_point("retrain.before_publish")
    while True:
        try:
            return _publish(context, lease, job, plan, trained, job_hooks, counters, apply_pause, is_cancelled)
        except SnapshotOutdated as outdated:
            snapshots.append_log(context, job, outdated.reason)
            return False
        except NewcomersRefused as refused:
            counters.newcomers.narrow(context, job, refused.newcomers, str(refused))
            return False
        except (Unavailable, OSError) as error:  # the trained tensors are good: only the publication is tried again
            if not wait_to_publish(context, lease, error, job_hooks.hooks()):
                return True


def _train(context: LifecycleContext, job: Job, plan: RetrainPlan, job_hooks: JobHooks) -> FitResult | None:
    if not plan.items:
        return None
    known = read_fit_edits(context, LiveSet(), [item.edit_id for item in plan.items])
    assert job.seed is not None
    trained = context.editors.locft(
        items_of(plan.items, known), plan.start, job.seed, job_hooks.hooks().scale_progress(0.0, TRAINING_SHARE)
    )
    snapshots.append_log(context, job, f"trained on {len(plan.items)} edits: {_format_scores(trained)}")
    return trained


def _format_scores(trained: FitResult) -> str:
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
    counters: RetrainCounters,
    apply_pause: ApplyPause,
    is_cancelled: Callable[[], bool],
) -> bool:
    """Catch up with the head and publish on it, again each time that the head moves. Return False once the retrain has lost too
    many publications.

    Applying pauses after `patience` lost publications, and continues before anything else is trained.
    """
    try:
        while snapshots.is_publishable(context, job, plan, head := read_head(context)):
            if counters.lost_publications >= context.settings.patience:
                apply_pause.set()
            try:
                if catch_up_and_publish(context, lease, job, plan, trained, job_hooks, head):
                    counters.newcomers.fail_suspect(context, lease, job)
                return True
            except FenceLost:
                raise
            except Stale:
                if is_cancelled():
                    raise FitCancelled("the retrain was cancelled") from None
                counters.lost_publications += 1
                if counters.lost_publications > context.settings.restarts:
                    counters.restarts = context.settings.restarts  # the next restart fails the job
                    return False
    finally:
        apply_pause.clear()
    raise SnapshotOutdated("an edit of the snapshot left the live set, or the head got other tensors")
