"""The doorbell of a server that is one process."""

import threading


class InProcessDoorbell:
    """A flag and a condition. Rings without a waiting worker are joined into one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rung = False
        self._closed = False

    def ring(self, edit_id: str) -> None:
        """Wake the worker."""
        with self._condition:
            self._rung = True
            self._condition.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring and consume it."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung or self._closed, timeout_s)
            rung, self._rung = self._rung, False
            return rung

    def acknowledge(self) -> None:
        """Nothing to confirm: rings end with the process, and the next worker's sweep finds their rows."""

    def close(self) -> None:
        """Wake the worker; later waits return at once."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
