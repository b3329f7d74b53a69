"""The worker: it reads the store and does the next due work. One of all processes holds the lease and acts; the others follow the
head.

Rows decide what is due; a ring of the doorbell only shortens the wait. There are four threads: one applies and refits; one
retrains, so that edits are published meanwhile; one does chores (probes, evaluations, collecting); one keeps the lease. The head
is followed by a thread of its own: `follow_loop.py`.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from service.background.collect import collect
from service.background.monitor import Monitor
from service.background.probes import score_next_edit
from service.domain.errors import Stale, Unavailable
from service.editors.protocol import FitCancelled, FitOverdue
from service.lifecycle.apply import apply, give_up_or_narrow
from service.lifecycle.context import EditingContext
from service.lifecycle.context_versions import publish_stated
from service.lifecycle.damage import replace_damaged_head, update_damage_marks
from service.lifecycle.lease import Lease
from service.lifecycle.lease_owner import is_dead, new_owner_name
from service.lifecycle.refit import give_up_or_retry, refit
from service.lifecycle.retrain.request import queue_if_due
from service.lifecycle.retrain.retries import count_failure, reason_of
from service.lifecycle.retrain.run import ApplyPause, retrain
from service.lm.compute_thread import ComputeThread
from service.runtime.follow_loop import FollowLoop
from service.store import heads, jobs
from service.store.heads import FenceLost
from service.store.jobs import Job
from service.telemetry.log import frames_of
from service.wakeup.doorbell import Doorbell
from service.wakeup.in_process import InProcessDoorbell

Chore = Callable[[], bool]
log = structlog.get_logger("errata.worker")


class Worker:
    """The worker of one process.

    `is_only_server` says that no other process can work on this store (the folder of a SQLite file is locked); the lease is
    then taken without waiting. A chore does one bounded piece of work and returns whether there was any; chores run one after
    another, beside the fits.
    """

    def __init__(
        self,
        context: EditingContext,
        *,
        doorbell: Doorbell | None = None,
        follow_loop: FollowLoop | None = None,
        is_only_server: bool = False,
        chores: Sequence[Chore] = (),
    ) -> None:
        self._context = context
        self._doorbell = doorbell or InProcessDoorbell()
        self._is_only_server = is_only_server
        self._chores: tuple[Chore, ...] = (
            lambda: score_next_edit(context),
            *chores,
            Monitor(context).step,
            self._judge_damage,
            self._collect,
        )
        self._owner = new_owner_name()
        self._fence: int | None = None
        self._held_until = 0.0  # by this process' monotonic clock, read before the request for the lease
        self._apply_pause = ApplyPause()
        self.follow_loop = FollowLoop(context) if follow_loop is None else follow_loop
        self._stopping = threading.Event()
        self._wakeup = threading.Condition()  # wakes the retrain thread and the chore thread
        self._threads: list[threading.Thread] = []
        self._collected_at = time.monotonic()
        self._judged_at = -math.inf

    @property
    def fence(self) -> int | None:
        """The fence under which this worker acts; None while it holds no lease."""
        return self._fence

    @property
    def is_alive(self) -> bool:
        """Whether the threads were started and all of them run."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def step(self) -> bool:
        """Do all due work in the caller's thread; whether there was any. For tests and runs without threads."""
        self._hold_or_leave()
        busy = self._advance()
        busy = self._retrain() or busy
        return self._do_chores() or busy

    def drain(self, most: int = 200) -> None:
        """Step until nothing is due, fewer than `most` times."""
        while self.step():
            most -= 1
            assert most > 0, "the worker never comes to rest"

    def start(self) -> None:
        """Start the worker's threads; they run until `stop`."""
        loops = {
            "edits": self._edit_loop,
            "lease": self._lease_loop,
            "retrain": self._retrain_loop,
            "chores": self._chore_loop,
        }
        self._threads = [ComputeThread(target=loop, name=f"errata-{name}", daemon=True) for name, loop in loops.items()]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop at the next step of a fit, leave running jobs to the next worker, and end the lease."""
        self._stopping.set()
        self._doorbell.close()
        self._wake()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._release()

    def _advance(self) -> bool:
        """Follow the head, then do the next piece of mending, refitting or applying."""
        self.follow_loop.step()
        lease = self._lease()
        if lease is None or self._context.checkpoints.store_error is not None:  # a fit's checkpoint could not be written
            return False
        if self._mend_head(lease):
            return True
        queued = queue_if_due(self._context)
        if queued:
            self._wake()
        has_stated = self._state_waiting()
        busy = self._guarded("refit", lease, lambda: refit(self._context, lease))
        if not busy and not self._apply_pause:
            busy = self._guarded("apply", lease, lambda: apply(self._context, lease))
        return busy or queued or has_stated

    def _state_waiting(self) -> bool:
        """State the edits that wait, if the head does not: what a request, or a process that died, left out. A failure holds up
        no fit, and is tried again at the next sweep.
        """
        try:
            return publish_stated(self._context) is not None
        except Stale:
            return True
        except Exception as error:
            log.error("edits that wait are not stated", error=type(error).__name__, frames=frames_of(error))
            return False

    def _mend_head(self, lease: Lease) -> bool:
        """Replace a damaged head."""
        try:
            return replace_damaged_head(self._context, lease)
        except FenceLost:
            self._drop_fence(lease.fence)
            return False
        except Stale:
            return True

    def _retrain(self) -> bool:
        lease, job = self._lease(), self._active_retrain()
        if lease is None or job is None:
            return False
        busy = self._guarded("retrain", lease, lambda: retrain(self._context, lease, self._apply_pause))
        self._log_end(job.id)
        return busy

    def _active_retrain(self) -> Job | None:
        with self._context.store.read() as connection:
            return jobs.find_active(connection, "retrain", brief=True)

    def _log_end(self, job_id: str) -> None:
        """Log the end of a retrain, if it has ended, whatever ended it."""
        with self._context.store.read() as connection:
            job = jobs.get(connection, job_id, brief=True)
        if job.finished_at is not None:
            seconds = (job.finished_at - (job.started_at or job.created_at)).total_seconds()
            outcome = {"status": job.status, "mode": job.mode, "version": job.version, "reason": job.error}
            log.info("retrain ended", job=job.id, **outcome, seconds=round(seconds, 1))

    def _do_chores(self) -> bool:
        if self._lease() is None:
            return False
        results = [self._try(chore) for chore in self._chores]  # a list, so that every chore runs
        return any(results)

    def _guarded(self, kind: str, lease: Lease, work: Callable[[], bool]) -> bool:
        """Do a piece of work. The type of an error decides whether the work is repeated, counted as a failure, or left to another
        worker.
        """
        try:
            return work()
        except FenceLost:
            self._drop_fence(lease.fence)
            return False
        except FitCancelled:
            return not lease.is_over()
        except Stale:
            return True
        except (Unavailable, OSError) as error:
            if kind == "retrain":  # a retrain takes minutes: endless repetition would keep the machine busy without notice
                self._count_failure(kind, lease, error)
                return True
            log.warning("cannot work now", job=kind, error=type(error).__name__)
            self._note_waiting(kind, error)
            raise Unavailable("the worker cannot reach what it needs") from error
        except Exception as error:
            self._count_failure(kind, lease, error)
            return True

    def _count_failure(self, kind: str, lease: Lease, error: Exception) -> None:
        """Count a failure of a job. Raises Unavailable, with nothing counted, if the database is away."""
        log.error("fit failed", job=kind, error=type(error).__name__, frames=frames_of(error))
        try:
            if kind == "retrain":
                count_failure(self._context, lease, error)
            elif kind == "apply":
                give_up_or_narrow(self._context, lease, reason_of(error), overdue=isinstance(error, FitOverdue))
            else:
                give_up_or_retry(self._context, lease, kind, reason_of(error))
        except FenceLost:
            self._drop_fence(lease.fence)

    def _note_waiting(self, kind: str, error: Exception) -> None:
        """Write into a job what the job waits for, if the database answers."""
        with contextlib.suppress(Unavailable), self._context.store.write() as connection:
            job = jobs.find_active(connection, kind, "running", brief=True)
            if job is not None:
                jobs.write(connection, job.id, stage=f"waiting: {reason_of(error)}")

    def _lease(self) -> Lease | None:
        fence, is_sound = self._fence, self._context.is_sound
        if fence is None or not is_sound() or not self._is_held():
            return None
        return Lease(fence, lambda: self._stopping.is_set() or self._fence != fence or not is_sound())

    def _is_held(self) -> bool:
        """Whether the lease is valid by this process' clock. While the database does not answer, the lease runs out and no work
        begins; work under way continues, because its publication checks the fence.
        """
        return self._is_only_server or time.monotonic() < self._held_until

    def _hold_or_leave(self) -> None:
        """Hold the lease, or leave it to another process: if the base weights are damaged here, or if the head cannot be read
        here, which another process perhaps can.
        """
        cannot_read = self._context.follower.is_unreadable and not self._is_only_server
        if self._context.is_sound() and not cannot_read:
            self._hold_lease()
        else:
            self._release()

    def _hold_lease(self) -> None:
        """Take the lease if it is free, or extend it."""
        lease_s = self._context.settings.lease_s
        until = time.monotonic() + lease_s
        with self._context.store.write() as connection:
            if self._fence is None:
                owner = heads.read_lease_owner(connection)
                dead = owner if owner is not None and is_dead(owner) else None
                fence = heads.take_lease(
                    connection, self._owner, lease_s=lease_s, is_only_server=self._is_only_server, dead_owner=dead
                )
            else:
                fence = self._fence
                try:
                    heads.renew_lease(connection, fence, lease_s=lease_s)
                except FenceLost:
                    self._drop_fence(fence)
                    return
        self._fence, self._held_until = fence, until

    def _drop_fence(self, fence: int) -> None:
        if self._fence == fence:
            log.warning("another worker has taken over", fence=fence)
            self._fence = None

    def _release(self) -> None:
        """Leave running jobs to the next worker, without counting an attempt, and end the lease."""
        fence, self._fence = self._fence, None
        if fence is None:
            return
        try:
            with self._context.store.write() as connection:
                jobs.uncount_claim(connection, fence)
                heads.release_lease(connection, fence)
        except Unavailable:
            log.warning("the lease could not be given back and will run out by itself")

    def _edit_loop(self) -> None:
        while not self._stopping.is_set():
            if self._try(self._advance):
                self._wake()
            else:
                self._doorbell.acknowledge()
                if self._doorbell.wait(self._context.settings.sweep_s):
                    self._wake()  # the ring may announce a retrain or an evaluation

    def _retrain_loop(self) -> None:
        while not self._stopping.is_set():
            if self._try(self._retrain):
                self._doorbell.ring("")  # the window may have room again, so waiting edits may be applied
            else:
                self._wait_for_work(self._context.settings.sweep_s)

    def _chore_loop(self) -> None:
        while not self._stopping.is_set():
            if not self._do_chores():
                self._wait_for_work(self._context.settings.sweep_s)

    def _lease_loop(self) -> None:
        while not self._stopping.is_set():
            fence_before = self._fence
            has_answer = self._try(self._keep_lease)
            if fence_before is None and self._fence is not None:
                self._doorbell.ring("")
            self._sleep(
                self._context.settings.lease_s / 3 if has_answer and self._fence is not None else self._context.settings.sweep_s
            )

    def _keep_lease(self) -> bool:
        self._hold_or_leave()
        return True

    def _try(self, work: Callable[[], bool]) -> bool:
        """Do work in a loop that must not end: an error is logged without values, and the next sweep tries again."""
        try:
            return work()
        except Exception as error:
            if not self._stopping.is_set():
                frames = [] if isinstance(error, Unavailable) else frames_of(error)
                log.error("will try again", error=type(error).__name__, frames=frames)
            return False

    def _collect(self) -> bool:
        lease = self._lease()
        if lease is None or time.monotonic() - self._collected_at < self._context.settings.collect_s:
            return False
        self._collected_at = time.monotonic()
        collect(self._context, fence=lease.fence)
        return False

    def _judge_damage(self) -> bool:
        lease = self._lease()
        if lease is None or time.monotonic() - self._judged_at < self._context.settings.judge_s:
            return False
        self._judged_at = time.monotonic()
        return update_damage_marks(self._context, lease)

    def _wake(self) -> None:
        with self._wakeup:
            self._wakeup.notify_all()

    def _wait_for_work(self, timeout_s: float) -> None:
        with self._wakeup:
            if not self._stopping.is_set():
                self._wakeup.wait(timeout_s)

    def _sleep(self, timeout_s: float) -> None:
        self._stopping.wait(timeout_s)
