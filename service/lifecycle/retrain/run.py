"""Retraining: a consolidating method over a snapshot of the live set, beside the head, while edits are still applied.

A *major* retrain starts from the base, a *minor* one from the head's tensors. The result is published only if every edit of the
snapshot may still be trained, or has a live successor; and a minor one only if the head still has the tensors that it started
from. Otherwise it is trained again, so that no published retrain was trained on an edit that had been retracted. A retrain that
ends without a publication leaves the head as it was, and its job holds the reason.
"""

import threading
from collections.abc import Callable

from service.domain.errors import Stale, Unavailable
from service.domain.liveset import LiveSet
from service.editors.protocol import FitCancelled, FitResult, StartElsewhere
from service.lifecycle.context import EditingContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.fit_inputs import items_of, read_fit_edits
from service.lifecycle.head_snapshot import HeadSnapshot, read_head
from service.lifecycle.job_hooks import JobHooks
from service.lifecycle.lease import Lease
from service.lifecycle.publish import Candidate, publish
from service.lifecycle.retrain import snapshots
from service.lifecycle.retrain.catch_up import prepare_candidate
from service.lifecycle.retrain.newcomers import NewcomerSearch
from service.lifecycle.retrain.outcomes import (
    ForcedRefused,
    HeadMoved,
    MajorNeeded,
    NewcomersRefused,
    NotAccepted,
    RestartNeeded,
    RetrainFailed,
    RetrainOutcome,
    RetrainPublished,
    TooManyMoves,
)
from service.lifecycle.retrain.retries import wait_to_publish
from service.lifecycle.retrain.snapshots import RetrainPlan
from service.store.heads import FenceLost
from service.store.jobs import Job

OTHER_LOCATION = "training cannot start from the head's tensors: it has to be a major one"
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


def retrain(context: EditingContext, lease: Lease, apply_pause: ApplyPause) -> bool:
    """Do the retrain that is queued or was left unfinished; return whether there was one. It ends published, failed or
    cancelled, with the reason in its row.
    """
    return Retrain(context, lease, apply_pause).run()


class Retrain:
    """One retrain, from its claim to its end; the methods are in the order in which they are reached.

    A try trains on one snapshot and publishes. How it ends is a value (`outcomes.py`), and some of these lead to another try on
    another snapshot.
    """

    def __init__(self, context: EditingContext, lease: Lease, apply_pause: ApplyPause) -> None:
        self._context, self._lease, self._apply_pause = context, lease, apply_pause
        self._newcomers = NewcomerSearch()
        self._restarts = 0
        self._lost_publications = 0

    def run(self) -> bool:
        """Claim the retrain that is due and bring it to its end; return whether there was one."""
        job = snapshots.claim(self._context, self._lease)
        if job is None:
            return False
        try:
            while job is not None and job.status == "running":
                job = self._next_try(self._train_and_publish(job))
        except FitCancelled:
            if self._lease.is_over() or not snapshots.end_if_cancelled(self._context, self._lease):
                raise
        return True

    def _train_and_publish(self, job: Job) -> RetrainOutcome:
        """One try: train on the job's snapshot, catch up with the head, publish."""
        is_cancelled = snapshots.cancel_check(self._context, job)
        job_hooks = JobHooks(
            self._context, self._lease, job.id, "retrain.middle", yields_to_edits=True, is_stop_requested=is_cancelled
        )
        plan = snapshots.read_plan(self._context, job)
        if not plan.items and not read_head(self._context).live_set.items:  # after a rollback to the base
            snapshots.fail(self._context, self._lease, NOTHING_LEFT)
            return RetrainFailed()
        try:
            trained = self._train(job, plan, job_hooks)
        except StartElsewhere:
            return MajorNeeded()
        crash_point("retrain.before_publish")
        while True:
            try:
                return self._record(job, self._catch_up_and_publish(job, plan, trained, job_hooks, is_cancelled))
            except (Unavailable, OSError) as error:  # the trained tensors are good: only the publication is tried again
                if not wait_to_publish(self._context, self._lease, error, job_hooks.hooks()):
                    return RetrainFailed()

    def _train(self, job: Job, plan: RetrainPlan, job_hooks: JobHooks) -> FitResult | None:
        if not plan.items:
            return None
        known = read_fit_edits(self._context, LiveSet(), [item.edit_id for item in plan.items])
        assert job.seed is not None
        hooks = job_hooks.hooks().scale_progress(0.0, TRAINING_SHARE)
        editors = self._context.editors_by_part.of(job.neutral_sentences)
        trained = editors.consolidating[plan.method].fit(items_of(plan.items, known), plan.start, seed=job.seed, hooks=hooks)
        hooks.progress(1.0, "getting ready for edits")
        editors.incremental.prepare(trained.overlay, hooks=hooks, ahead=True)
        snapshots.append_log(self._context, job, f"trained on {len(plan.items)} edits: {_format_scores(trained)}")
        return trained

    def _catch_up_and_publish(
        self,
        job: Job,
        plan: RetrainPlan,
        trained: FitResult | None,
        job_hooks: JobHooks,
        is_cancelled: Callable[[], bool],
    ) -> RetrainOutcome:
        """Catch up with the head and publish on it, again each time that the head moves.

        Applying pauses after `patience` lost publications, and continues before anything else is trained.
        """
        try:
            while snapshots.is_publishable(self._context, job, plan, head := read_head(self._context)):
                if self._lost_publications >= self._context.settings.patience:
                    self._apply_pause.set()
                outcome = self._publish_on(job, plan, trained, job_hooks, head)
                if not isinstance(outcome, HeadMoved):
                    return outcome
                if is_cancelled():
                    raise FitCancelled("the retrain was cancelled")
                self._lost_publications += 1
                if self._lost_publications > self._context.settings.restarts:
                    return TooManyMoves()
        finally:
            self._apply_pause.clear()
        return RestartNeeded("an edit of the snapshot left the live set, or the head got other tensors")

    def _publish_on(
        self, job: Job, plan: RetrainPlan, trained: FitResult | None, job_hooks: JobHooks, head: HeadSnapshot
    ) -> RetrainOutcome | HeadMoved:
        """Publish on one head, or say why not."""
        candidate = prepare_candidate(self._context, self._lease, job, plan, trained, job_hooks, head)
        if not isinstance(candidate, Candidate):
            return candidate
        try:
            publish(self._context, candidate)
        except FenceLost:
            raise
        except Stale:
            return HeadMoved()
        return RetrainPublished(is_overruled=candidate.overruled is not None)

    def _record(self, job: Job, outcome: RetrainOutcome) -> RetrainOutcome:
        """Write what an outcome means for the job and its edits."""
        match outcome:
            case RetrainPublished(is_overruled=False):
                self._newcomers.fail_suspect(self._context, self._lease, job)
            case NotAccepted():
                snapshots.refuse(self._context, self._lease, job, outcome)
            case NewcomersRefused():
                self._newcomers.narrow(self._context, self._lease, job, outcome)
            case ForcedRefused():
                self._newcomers.keep_out(self._context, job, outcome)
            case RestartNeeded(reason):
                snapshots.append_log(self._context, job, reason)
        return outcome

    def _next_try(self, outcome: RetrainOutcome) -> Job | None:
        """The job with another snapshot if the outcome asks for one; None at the end. Too many tries fail the job."""
        match outcome:
            case RetrainPublished() | NotAccepted() | RetrainFailed():
                return None
            case MajorNeeded():
                snapshots.change_to_major(self._context, self._lease, OTHER_LOCATION)
            case TooManyMoves():
                self._restarts = self._context.settings.restarts
        self._restarts += 1
        if self._restarts > self._context.settings.restarts:
            snapshots.fail(self._context, self._lease, CHANGED_TOO_OFTEN)
            return None
        return snapshots.replace_snapshot(self._context, self._lease, self._newcomers.excluded_ids)


def _format_scores(trained: FitResult) -> str:
    figures = [
        f"{name.replace('_', ' ')} {f'{value:.3f}' if isinstance(value, float) else value}"
        for name, value in sorted(trained.scores.items())
    ]
    return ", ".join([*figures, f"{len(trained.lost)} not taken"])
