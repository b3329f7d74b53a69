"""A long function that runs step by step between other work, although it is written as one function."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from service.lm.compute_thread import ComputeThread

Result = TypeVar("Result")


class TaskCancelled(BaseException):
    """Raised inside cancelled work. A BaseException, so that no `except Exception` in the work catches it."""


class CooperativeTask(Generic[Result]):
    """Runs `work(pause)` in a thread that proceeds only while a caller waits in `run_step`, so nothing runs in parallel.

    The work calls `pause` between its small steps. Once `step_s` seconds of a step are over, `pause` returns only in the next
    `run_step`.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Result], *, step_s: float) -> None:
        self._work, self._step_s = work, step_s
        self._may_run = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._until = 0.0
        self._is_cancelled = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._is_done = False
        self._thread = ComputeThread(target=self._run, name="errata-stepwise", daemon=True)
        self._thread.start()

    def run_step(self) -> bool:
        """Let the work run for one step; whether it is done. Raises the error that the work raised."""
        if not self._is_done:
            self._until = time.monotonic() + self._step_s
            self._may_run.release()
            self._has_stopped.acquire()
        if self._error is not None:
            raise self._error
        return self._is_done

    @property
    def result(self) -> Result:
        """The result of the work. `run_step` must have returned True before."""
        assert self._is_done and self._error is None
        return self._result  # type: ignore[return-value]  # the result may be None

    def cancel(self) -> None:
        """End the work at its current step. Safe to repeat, also after the end."""
        if not self._is_done:
            self._is_cancelled = True
            self._may_run.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._wait()
            self._result = self._work(self._pause)
        except TaskCancelled:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._is_done = True
            self._has_stopped.release()

    def _pause(self) -> None:
        if time.monotonic() >= self._until:
            self._has_stopped.release()
            self._wait()

    def _wait(self) -> None:
        self._may_run.acquire()
        if self._is_cancelled:
            raise TaskCancelled
