"""The hooks of a job's fits: progress goes to its row, and a fit that is not wanted any more stops."""

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
EDIT_FIT_WAIT_S = 1.0  # longest wait of a retrain for a fit of edits, which takes about so long; unwaited for, 2.3 times that
WORK_BETWEEN_WAITS_S = 0.5  # of a retrain between two such waits, so that a stream of edits does not stop it


def _never() -> bool:
    return False


@dataclass
class JobHooks:
    """Makes the hooks of one job: its progress is written to its row, and its fit stops when it is in vain."""

    context: LifecycleContext
    lease: Lease
    job_id: str
    crash_point_name: str  # the named point in the middle of this kind of fit
    is_stale: Callable[[], bool] = _never
    yields_to_edits: bool = False
    is_stop_requested: Callable[[], bool] = _never  # looked at now and then: it may take a look at the database
    limit_s: float = math.inf  # seconds from when this was made until a fit is overdue
    _began: float = field(default_factory=lambda: time.monotonic())
    _written: float = field(default=0.0)
    _looked: float = field(default=0.0)
    _stage: str = field(default="")
    _steps: int = field(default=0)
    _waited: float = field(default=0.0)
    _furthest: float = field(default=0.0)

    def hooks(self) -> Hooks:
        """Hooks for one fit."""
        return Hooks(yield_to_answers=self._yield_to_answers, progress=self._progress, is_cancelled=self._is_cancelled)

    @property
    def is_overdue(self) -> bool:
        """Whether the job has taken longer than it may."""
        return time.monotonic() - self._began > self.limit_s

    def _is_cancelled(self) -> bool:
        if self.lease.is_over() or self.is_stale() or self.is_overdue:
            return True
        now = time.monotonic()
        if now - self._looked < self.context.settings.look_s:
            return False
        self._looked = now
        try:
            return self.is_stop_requested()
        except Unavailable:
            return False  # a fit does not end because the database is away for a moment

    def _yield_to_answers(self) -> None:
        self._steps += 1
        if self._steps == 2:
            crash_point(self.crash_point_name)
        if self.yields_to_edits:
            self._let_edits_go_first()
        self.context.yield_to_answers()

    def _let_edits_go_first(self) -> None:
        """Wait for a fit of edits at the first step beside it; after that come WORKS_S of steps, whatever edits there are."""
        if not self.context.edit_fits_idle.is_set() and time.monotonic() - self._waited >= WORK_BETWEEN_WAITS_S:
            self.context.edit_fits_idle.wait(EDIT_FIT_WAIT_S)
            self._waited = time.monotonic()

    def _progress(self, share: float, stage: str) -> None:
        self._furthest = max(self._furthest, min(1.0, float(share)))  # a job of several fits goes on where the last one ended
        now = time.monotonic()
        if now - self._written >= PROGRESS_INTERVAL_S:
            self._written = now
            with contextlib.suppress(Unavailable), self.context.store.write() as connection:
                jobs.write(connection, self.job_id, progress=self._furthest, stage=stage[:200])
                if stage != self._stage:
                    jobs.append_to_log(connection, self.job_id, stage[:200], self.context.clock())
            self._stage = stage
