"""Following the head: a thread of its own that brings this process up to the head that any process moved.

It runs beside whatever the worker is in the middle of, and also where there is no worker.
"""

import threading
from collections.abc import Mapping

import structlog

from service.domain.edit import EditStatus
from service.domain.errors import Unavailable
from service.lifecycle.context import LifecycleContext
from service.lm.compute_thread import ComputeThread
from service.store import edits
from service.telemetry.log import frames_of

log = structlog.get_logger("errata.follow")


class FollowLoop:
    """Adopts each new head, and wakes the calls that wait for edits which another process settled."""

    def __init__(self, context: LifecycleContext) -> None:
        self._context = context
        self._stopping = threading.Event()
        self._thread = ComputeThread(target=self._run, name="errata-follow", daemon=True)
        self._announced: Mapping[str, EditStatus] = {}  # the statuses last announced to waiting calls, and their epoch
        self._announced_epoch = -1

    @property
    def is_alive(self) -> bool:
        """Whether the thread was started and runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; it runs until `stop`."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def step(self) -> None:
        """Check the place of checkpoints, adopt the head, and announce settled edits. Raises Unavailable."""
        self._check_checkpoints()
        self._follow()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step()
            except Exception as error:  # a loop that must not end: the next look tries again
                if not self._stopping.is_set():
                    frames = [] if isinstance(error, Unavailable) else frames_of(error)
                    log.error("will try again", error=type(error).__name__, frames=frames)
            self._stopping.wait(self._context.settings.follow_s)

    def _follow(self) -> None:
        """Catch up with a head that another process moved, and wake the calls that wait for edits which that process settled.

        The statuses are read before the head, so that an edit that is announced as settled is live in the head that was adopted.
        """
        awaited_ids = self._context.announcer.awaited_ids()
        settled: dict[str, EditStatus] = {}
        if awaited_ids:
            with self._context.store.read() as connection:
                statuses = edits.read_statuses(connection, awaited_ids)
            settled = {edit_id: status for edit_id, status in statuses.items() if status.is_settled}
        self._context.follower.catch_up()
        epoch = self._context.follower.current.epoch
        # Only new statuses are announced: each woken call reads the rows again, and hundreds may wait.
        announced = self._announced if epoch == self._announced_epoch else {}
        self._context.announcer.announce(edit_id for edit_id, status in settled.items() if announced.get(edit_id) is not status)
        self._announced, self._announced_epoch = settled, epoch

    def _check_checkpoints(self) -> None:
        """Check whether checkpoints can be written, and log each change once."""
        before, now = self._context.checkpoints.store_error, self._context.checkpoints.check_store()
        if now != before:
            log.warning("edits wait" if now else "edits are applied again", reason=now or "the checkpoints are there")
