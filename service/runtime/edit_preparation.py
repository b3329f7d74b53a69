"""Getting ready for edits behind the open port: neutral sentences, editors, and what the first fit needs. Then the worker starts.

A server answers prompts and accepts edits meanwhile; an edit that was accepted waits in the store. What fails is tried again.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from service.domain.errors import ServiceError, Unavailable
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitCancelled, Hooks
from service.runtime.worker import Worker
from service.telemetry.log import frames_of

READY = "ok"
RETRY_S = 10.0  # between two attempts
log = structlog.get_logger("errata.server")


@dataclass(frozen=True)
class Prepared:
    """What a server needs for edits. The worker is not started yet."""

    neutral: NeutralSentences
    worker: Worker


class EditPreparation:
    """Prepares in a thread of its own, then starts the worker.

    `prepare(hooks, stack)` does the work. It gives way to answers and is cancelled by `hooks`, and leaves what is to be closed on
    `stack`.
    """

    def __init__(
        self,
        prepare: Callable[[Hooks, ExitStack], Prepared],
        *,
        yield_to_answers: Callable[[], None] = lambda: None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._prepare, self._retry_s = prepare, retry_s
        self._stopping = threading.Event()
        self._stack = ExitStack()
        self._prepared: Prepared | None = None
        self._state = "getting ready for edits"
        self._hooks = Hooks(yield_to_answers=yield_to_answers, progress=self._show_progress, is_cancelled=self._stopping.is_set)
        self._thread = threading.Thread(target=self._run, name="errata-prepare", daemon=True)

    @property
    def state(self) -> str:
        """`ok` once edits are fitted; before that, what they wait for."""
        return self._state

    @property
    def is_alive(self) -> bool:
        """Whether the thread works, or the worker that it started."""
        return self._thread.is_alive() if self._prepared is None else self._prepared.worker.is_alive

    def get_neutral(self) -> NeutralSentences:
        """The neutral sentences. Raises Unavailable while they are not sampled."""
        if self._prepared is None:
            raise Unavailable(f"The neutral sentences of the base model are not there yet: {self._state}.", retry_after_s=10.0)
        return self._prepared.neutral

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the preparation at its next step, or stop the worker."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._prepared is not None:
            self._prepared.worker.stop(timeout_s)
        self._stack.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                prepared = self._prepare(self._hooks, self._stack)
            except FitCancelled:
                return
            except Exception as error:
                self._stack.close()
                self._report(error)
                self._stopping.wait(self._retry_s)
                continue
            prepared.worker.start()
            self._prepared = prepared
            self._state = READY
            log.info("ready for edits")
            return

    def _report(self, error: Exception) -> None:
        """Say what failed, without values of an unexpected error."""
        reason = error.message if isinstance(error, ServiceError) else f"it ended with {type(error).__name__}"
        frames = [] if isinstance(error, ServiceError) else frames_of(error)
        self._state = f"getting ready for edits failed and is tried again: {reason}"
        log.error("getting ready for edits failed", error=reason, frames=frames)

    def _show_progress(self, share: float, stage: str) -> None:
        self._state = f"{stage}, {share:.0%}"
