"""The worker: looks at the store and does the next due thing. One of all processes holds the lease and acts; the others follow
its head.

Rows decide what is due, never a message: a ring only shortens the wait. Applying and refitting have one thread, a retrain
another, so that edits go on being published beside it; probes, evaluations and collecting have a third; a fourth keeps the
lease; a fifth follows the head, whatever the others are in the middle of.
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
from service.domain.edit import EditStatus
from service.domain.errors import Stale, Unavailable
from service.editors.protocol import FitCancelled, FitOverdue
from service.lifecycle.apply import apply, give_up_or_narrow
from service.lifecycle.context import LifecycleContext
from service.lifecycle.damage import replace_damaged_head, update_damage_marks
from service.lifecycle.lease import Lease
from service.lifecycle.lease_owner import is_dead, new_owner_name
from service.lifecycle.refit import give_up_or_retry, refit
from service.lifecycle.retrain.request import queue_if_due
from service.lifecycle.retrain.retries import count_failure, reason_of
from service.lifecycle.retrain.run import ApplyPause, retrain
from service.store import edits, heads, jobs
from service.store.heads import FenceLost
from service.store.jobs import Job
from service.telemetry.log import frames_of
from service.wakeup.doorbell import Doorbell
from service.wakeup.in_process import InProcessDoorbell

Chore = Callable[[], bool]
log = structlog.get_logger("errata.worker")


class Worker:
    """`alone` says that no other process can work on this store (the folder of a SQLite file is locked), so no lease is waited
    for.

    A chore does one bounded piece of work and says whether there was any; chores run one after another beside the fits.
    """

    def __init__(
        self, context: LifecycleContext, *, doorbell: Doorbell | None = None, alone: bool = False, chores: Sequence[Chore] = ()
    ) -> None:
        self._context = context
        self._doorbell = doorbell or InProcessDoorbell()
        self._alone = alone
        self._chores: tuple[Chore, ...] = (
            lambda: score_next_edit(context),
            *chores,
            Monitor(context).step,
            self._judge,
            self._collect,
        )
        self._owner = new_owner_name()
        self._fence: int | None = None
        self._held_until = 0.0  # by this process' steady clock, from before the lease was asked for
        self._pressed = ApplyPause()
        self._stopping = threading.Event()
        self._more = threading.Condition()  # wakes the threads beside the main one
        self._threads: list[threading.Thread] = []
        self._collected_at = time.monotonic()
        self._told: dict[str, EditStatus] = {}  # what those who wait were last told, and at which epoch
        self._told_at = -1
        self._judged_at = -math.inf

    @property
    def fence(self) -> int | None:
        """The fence under which this worker acts, or None while another one does."""
        return self._fence

    @property
    def is_alive(self) -> bool:
        """Whether all of the started threads still run."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def step(self) -> bool:
        """Do whatever is due, all in the caller's thread; whether there was anything. For tests and runs without threads."""
        self._hold_or_leave()
        busy = self._advance()
        busy = self._retrain() or busy
        return self._do_chores() or busy

    def drain(self, most: int = 200) -> None:
        """Step until nothing is due."""
        while self.step():
            most -= 1
            assert most > 0, "the worker never comes to rest"

    def start(self) -> None:
        """Work in threads of its own until `stop`."""
        loops = {
            "edits": self._edit_loop,
            "lease": self._lease_loop,
            "retrain": self._retrain_loop,
            "chores": self._chore_loop,
            "follow": self._follow_loop,
        }
        self._threads = [threading.Thread(target=loop, name=f"errata-{name}", daemon=True) for name, loop in loops.items()]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop between two steps of a fit, hand back what was under way, and give up the lease."""
        self._stopping.set()
        self._doorbell.close()
        self._wake()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._hand_back()

    def _advance(self) -> bool:
        """Follow the head, then do the next thing of applying and refitting."""
        self._keep_up()
        lease = self._lease()
        if lease is None or self._context.checkpoints.folder_error is not None:  # what was fitted now could not be kept
            return False
        if self._mend(lease):
            return True
        queued = queue_if_due(self._context)
        if queued:
            self._wake()
        busy = self._guarded("refit", lease, lambda: refit(self._context, lease))
        if not busy and not self._pressed:
            busy = self._guarded("apply", lease, lambda: apply(self._context, lease))
        return busy or queued

    def _mend(self, lease: Lease) -> bool:
        """Put something good in the place of a damaged head."""
        try:
            return replace_damaged_head(self._context, lease)
        except FenceLost:
            self._drop_fence(lease.fence)
            return False
        except Stale:
            return True

    def _retrain(self) -> bool:
        lease, job = self._lease(), self._retrain_to_do()
        if lease is None or job is None:
            return False
        busy = self._guarded("retrain", lease, lambda: retrain(self._context, lease, self._pressed))
        self._say_ended(job.id)
        return busy

    def _retrain_to_do(self) -> Job | None:
        with self._context.store.read() as connection:
            return jobs.find_active(connection, "retrain", brief=True)

    def _say_ended(self, job_id: str) -> None:
        """Log how a retrain ended, if it did, however that came about."""
        with self._context.store.read() as connection:
            job = jobs.get(connection, job_id, brief=True)
        if job.finished_at is not None:
            passed = (job.finished_at - (job.started_at or job.created_at)).total_seconds()
            how = {"status": job.status, "mode": job.mode, "version": job.version, "reason": job.error}
            log.info("retrain ended", job=job.id, **how, seconds=round(passed, 1))

    def _do_chores(self) -> bool:
        if self._lease() is None:
            return False
        done = [self._quietly(chore) for chore in self._chores]  # all of them, whatever the first says
        return any(done)

    def _guarded(self, kind: str, lease: Lease, work: Callable[[], bool]) -> bool:
        """Do a piece of work; what it may fail with decides whether it is repeated, counted as a failure, or left to another
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
            if kind == "retrain":  # it takes minutes: repeated for ever it would keep the machine busy, and tell nobody
                self._count_failure(kind, lease, error)
                return True
            log.warning("cannot work now", job=kind, error=type(error).__name__)
            self._say_why(kind, error)
            raise Unavailable("the worker cannot reach what it needs") from error
        except Exception as error:
            self._count_failure(kind, lease, error)
            return True

    def _count_failure(self, kind: str, lease: Lease, error: Exception) -> None:
        """Raises Unavailable if the database is away: then nothing was counted."""
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

    def _say_why(self, kind: str, error: Exception) -> None:
        """Show what a job waits for, if the database is there."""
        with contextlib.suppress(Unavailable), self._context.store.write() as connection:
            job = jobs.find_active(connection, kind, "running", brief=True)
            if job is not None:
                jobs.write(connection, job.id, stage=f"waiting: {reason_of(error)}")

    def _follow(self) -> None:
        """Catch up with a head that another process moved, and wake who waits for edits that it settled.

        The edits are looked at first: what was settled before the head was read is answered after it was swapped.
        """
        awaited_ids = self._context.announcer.awaited_ids()
        settled: dict[str, EditStatus] = {}
        if awaited_ids:
            with self._context.store.read() as connection:
                settled = {
                    one: status for one, status in edits.read_statuses(connection, awaited_ids).items() if status.is_settled
                }
        self._context.follower.catch_up()
        epoch = self._context.follower.current.epoch
        # Only what is new: whoever is woken for nothing asks the rows again, and hundreds may wait.
        told = self._told if epoch == self._told_at else {}
        self._context.announcer.announce(one for one, status in settled.items() if told.get(one) is not status)
        self._told, self._told_at = settled, epoch

    def _lease(self) -> Lease | None:
        fence, is_sound = self._fence, self._context.is_sound
        if fence is None or not is_sound() or not self._is_held():
            return None
        return Lease(fence, lambda: self._stopping.is_set() or self._fence != fence or not is_sound())

    def _is_held(self) -> bool:
        """Whether the lease still runs, as far as this process knows. While the database does not answer it runs out, and nothing
        new is begun; what is under way goes on, for its publication needs the fence.
        """
        return self._alone or time.monotonic() < self._held_until

    def _hold_or_leave(self) -> None:
        """Hold the lease, unless another process shall have it: what fits are made with is damaged here, or the head cannot be
        read here and perhaps can be elsewhere.
        """
        cannot_read = self._context.follower.is_unreadable and not self._alone
        if self._context.is_sound() and not cannot_read:
            self._hold_lease()
        else:
            self._hand_back()

    def _hold_lease(self) -> None:
        """Take the lease if it is free, or keep it."""
        lease_s = self._context.settings.lease_s
        until = time.monotonic() + lease_s
        with self._context.store.write() as connection:
            if self._fence is None:
                before = heads.read_lease_owner(connection)
                dead = before if before is not None and is_dead(before) else None
                fence = heads.take_lease(connection, self._owner, lease_s=lease_s, is_only_server=self._alone, dead_owner=dead)
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

    def _hand_back(self) -> None:
        """Leave running jobs for the next worker, without counting that as an attempt, and end the lease."""
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
            if self._quietly(self._advance):
                self._wake()
            else:
                self._doorbell.heard()
                if self._doorbell.wait(self._context.settings.sweep_s):
                    self._wake()  # a ring may be for a retrain or an evaluation

    def _retrain_loop(self) -> None:
        while not self._stopping.is_set():
            if self._quietly(self._retrain):
                self._doorbell.ring("")  # the window may have room again, and edits that were held up may be applied
            else:
                self._rest(self._context.settings.sweep_s)

    def _chore_loop(self) -> None:
        while not self._stopping.is_set():
            if not self._do_chores():
                self._rest(self._context.settings.sweep_s)

    def _follow_loop(self) -> None:
        while not self._stopping.is_set():
            self._quietly(self._keep_up)
            self._rest_alone(self._context.settings.follow_s)

    def _keep_up(self) -> bool:
        self._look_at_the_folder()
        self._follow()
        return True

    def _look_at_the_folder(self) -> None:
        """See whether checkpoints can be kept, and say once that they cannot, and once that they can again."""
        before, now = self._context.checkpoints.folder_error, self._context.checkpoints.check_folder()
        if now != before:
            log.warning("edits wait" if now else "edits are applied again", reason=now or "the checkpoints are there")

    def _lease_loop(self) -> None:
        while not self._stopping.is_set():
            held = self._fence
            kept = self._quietly(self._keep)
            if held is None and self._fence is not None:
                self._doorbell.ring("")
            self._rest_alone(
                self._context.settings.lease_s / 3 if kept and self._fence is not None else self._context.settings.sweep_s
            )

    def _keep(self) -> bool:
        self._hold_or_leave()
        return True

    def _quietly(self, work: Callable[[], bool]) -> bool:
        """Do something in a loop that must not end: what fails is logged without texts and looked at again at the next sweep."""
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

    def _judge(self) -> bool:
        lease = self._lease()
        if lease is None or time.monotonic() - self._judged_at < self._context.settings.judge_s:
            return False
        self._judged_at = time.monotonic()
        return update_damage_marks(self._context, lease)

    def _wake(self) -> None:
        with self._more:
            self._more.notify_all()

    def _rest(self, timeout_s: float) -> None:
        with self._more:
            if not self._stopping.is_set():
                self._more.wait(timeout_s)

    def _rest_alone(self, timeout_s: float) -> None:
        self._stopping.wait(timeout_s)
