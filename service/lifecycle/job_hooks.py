"""The hooks of a job's fits. They write progress to the job's row, and stop a fit that is not needed any more."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain.errors import Unavailable
from service.editors.protocol import Hooks
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.lease import Lease
from service.store import jobs

PROGRESS_INTERVAL_S = 0.5  # between two writes of a job's progress
EDIT_FIT_WAIT_S = (
    1.0  # longest wait of a retrain for a fit of edits; the fit takes about 1 s, and 2.3 times as long beside the retrain
)
WORK_BETWEEN_WAITS_S = 0.5  # work of a retrain between two waits, so that a stream of edits does not stop it


def _never() -> bool:
    return False


@dataclass
class JobHooks:
    """Makes the hooks of one job. Progress is written to the job's row. A fit stops when the lease is over, the fit `is_stale`
    or overdue, or a stop was requested.

    With `yields_to_edits` the fit waits for fits of edits, for a bounded share of the time.
    """

    context: LifecycleContext
    lease: Lease
    job_id: str
    crash_point_name: str  # of the crash point in the middle of the fit
    is_stale: Callable[[], bool] = _never
    yields_to_edits: bool = False
    is_stop_requested: Callable[[], bool] = _never  # called every `look_s` seconds: the call may read the database
    limit_s: float = math.inf  # seconds from the creation of the hooks until a fit is overdue
    _start_s: float = field(default_factory=lambda: time.monotonic())
    _last_write_s: float = field(default=0.0)
    _last_check_s: float = field(default=0.0)
    _stage: str = field(default="")
    _steps: int = field(default=0)
    _last_wait_s: float = field(default=0.0)
    _progress_max: float = field(default=0.0)

    def hooks(self) -> Hooks:
        """The hooks of one fit."""
        return Hooks(yield_to_answers=self._yield_to_answers, progress=self._progress, is_cancelled=self._is_cancelled)

    @property
    def is_overdue(self) -> bool:
        """Whether the job has taken longer than `limit_s`."""
        return time.monotonic() - self._start_s > self.limit_s

    def _is_cancelled(self) -> bool:
        if self.lease.is_over() or self.is_stale() or self.is_overdue:
            return True
        now = time.monotonic()
        if now - self._last_check_s < self.context.settings.look_s:
            return False
        self._last_check_s = now
        try:
            return self.is_stop_requested()
        except Unavailable:
            return False  # a database that is away for a moment does not end a fit

    def _yield_to_answers(self) -> None:
        self._steps += 1
        if self._steps == 2:
            crash_point(self.crash_point_name)
        if self.yields_to_edits:
            self._wait_for_edit_fit()
        self.context.yield_to_answers()

    def _wait_for_edit_fit(self) -> None:
        """Wait for a fit of edits at the first step beside it. At least WORK_BETWEEN_WAITS_S of steps follow before the next
        wait.
        """
        if not self.context.edit_fits_idle.is_set() and time.monotonic() - self._last_wait_s >= WORK_BETWEEN_WAITS_S:
            self.context.edit_fits_idle.wait(EDIT_FIT_WAIT_S)
            self._last_wait_s = time.monotonic()

    def _progress(self, share: float, stage: str) -> None:
        self._progress_max = max(self._progress_max, min(1.0, float(share)))  # over all fits of the job
        now = time.monotonic()
        if now - self._last_write_s >= PROGRESS_INTERVAL_S:
            self._last_write_s = now
            with contextlib.suppress(Unavailable), self.context.store.write() as connection:
                jobs.write(connection, self.job_id, progress=self._progress_max, stage=stage[:200])
                if stage != self._stage:
                    jobs.append_to_log(connection, self.job_id, stage[:200], self.context.clock())
            self._stage = stage
