"""A long function done piece by piece, between other work, without being written as pieces."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class TaskCancelled(BaseException):
    """Raised inside work that nobody will go on with. No `except Exception` on its way may swallow it."""


class CooperativeTask(Generic[Result]):
    """Runs `work(between)` in a thread that moves only while somebody waits in `go_on`: there is never anything beside it.

    `between` is what the work calls between its small steps. There it stops as soon as `step_s` are over, until the next `go_on`.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Result], *, step_s: float) -> None:
        self._work, self._step_s = work, step_s
        self._may_go_on = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._until = 0.0
        self._dropped = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._is_done = False
        self._thread = threading.Thread(target=self._run, name="errata-stepwise", daemon=True)
        self._thread.start()

    def run_step(self) -> bool:
        """Let the work go on for one step; whether it is done. Raises what the work raised."""
        if not self._is_done:
            self._until = time.monotonic() + self._step_s
            self._may_go_on.release()
            self._has_stopped.acquire()
        if self._error is not None:
            raise self._error
        return self._is_done

    @property
    def result(self) -> Result:
        """What the work returned, once `go_on` said that it is done."""
        assert self._is_done and self._error is None
        return self._result  # type: ignore[return-value]  # None is a result too, if the work says so

    def cancel(self) -> None:
        """End the work where it stands. Safe to repeat, and after the end."""
        if not self._is_done:
            self._dropped = True
            self._may_go_on.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._wait()
            self._result = self._work(self._between)
        except TaskCancelled:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._is_done = True
            self._has_stopped.release()

    def _between(self) -> None:
        if time.monotonic() >= self._until:
            self._has_stopped.release()
            self._wait()

    def _wait(self) -> None:
        self._may_go_on.acquire()
        if self._dropped:
            raise TaskCancelled
