"""Getting ready for edits behind the open port: neutral sentences, editors, and what the first fit needs. Then the worker starts.

It starts as soon as a first part of the sentences is there, and the others are sampled beside it. A server answers prompts and
accepts edits before; an edit that was accepted waits in the store. What fails is tried again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import structlog

from service.domain.errors import ServiceError, Unavailable
from service.editors.neutral import NeutralSentences
from service.editors.neutral_store import NeutralPart
from service.editors.protocol import FitCancelled, Hooks
from service.lm.compute_thread import ComputeThread
from service.runtime.worker import Worker
from service.telemetry.log import frames_of

READY = "ok"
RETRY_S = 10.0  # between two attempts
log = structlog.get_logger("errata.server")


class Editing(Protocol):
    """What fits edits, once there are neutral sentences. The worker is not started yet."""

    @property
    def worker(self) -> Worker: ...

    def grow(self, part: NeutralPart, hooks: Hooks) -> None:
        """Let later fits use more neutral sentences."""

    def calibrate(self, hooks: Hooks) -> None:
        """Prepare what acceptance judges by, once for a base. Edits are fitted meanwhile."""


class EditPreparation:
    """Prepares in a thread of its own, starts the worker, and lets its fits use more sentences as these arrive.

    `sentences(hooks)` gives the neutral sentences: a first part of them, then all, or all at once. `begin(part, hooks, stack)`
    opens the editors with what is there, and leaves what is to be closed on `stack`. All of it gives way and is cancelled by
    `hooks`. An attempt after a fault gets the same sentences again.
    """

    def __init__(
        self,
        sentences: Callable[[Hooks], Iterator[NeutralPart]],
        begin: Callable[[NeutralPart, Hooks, ExitStack], Editing],
        *,
        give_way: Callable[[], None] = lambda: None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._sentences, self._begin, self._retry_s = sentences, begin, retry_s
        self._stopping = threading.Event()
        self._stack = ExitStack()
        self._editing: Editing | None = None
        self._part: NeutralPart | None = None  # that fits may use
        self._awaited = "getting ready for edits"
        self._hooks = Hooks(yield_to_answers=give_way, progress=self._show_progress, is_cancelled=self._stopping.is_set)
        self._thread = ComputeThread(target=self._run, name="errata-prepare", daemon=True)

    @property
    def state(self) -> str:
        """`ok` once fits use all neutral sentences; before that, what edits or retrains wait for."""
        part, awaited = self._part, self._awaited
        if part is None:
            return awaited
        return READY if part.is_whole else f"{_describe(part)}, and retrains wait for the others: {awaited}"

    @property
    def is_alive(self) -> bool:
        """Whether what should run does: the thread until all sentences are there, and the worker that it started."""
        is_over = self._part is not None and self._part.is_whole
        return (is_over or self._thread.is_alive()) and (self._editing is None or self._editing.worker.is_alive)

    def get_neutral(self) -> NeutralSentences:
        """The neutral sentences that fits may use. Raises Unavailable while there are none."""
        if self._part is None:
            raise Unavailable(f"The neutral sentences of the base model are not there yet: {self.state}.", retry_after_s=10.0)
        return self._part.neutral

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the preparation at its next step, and stop the worker."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._editing is not None:
            self._editing.worker.stop(timeout_s)
        self._stack.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._part is None or not self._part.is_whole:
                    for part in self._sentences(self._hooks):
                        self._take(part)
                self._calibrate()
                return
            except FitCancelled:
                return
            except Exception as error:
                self._report(error)
                self._stopping.wait(self._retry_s)

    def _take(self, part: NeutralPart) -> None:
        """Let fits use a part: with the first one the worker starts."""
        if self._editing is None:
            with ExitStack() as stack:
                editing = self._begin(part, self._hooks, stack)
                self._stack = stack.pop_all()
            editing.worker.start()
            self._editing = editing
        elif self._part is not None and len(part.neutral.sentences) <= len(self._part.neutral.sentences) and not part.is_whole:
            return  # an attempt after a fault
        else:
            self._editing.grow(part, self._hooks)
        self._part = part
        log.info("ready for edits", fits=_describe(part))

    def _calibrate(self) -> None:
        if self._editing is not None:
            self._editing.calibrate(self._hooks)
            log.info("acceptance is calibrated to the base model")

    def _report(self, error: Exception) -> None:
        """Say what failed, without values of an unexpected error."""
        reason = error.message if isinstance(error, ServiceError) else f"it ended with {type(error).__name__}"
        frames = [] if isinstance(error, ServiceError) else frames_of(error)
        self._awaited = f"getting ready for edits failed and is tried again: {reason}"
        log.error("getting ready for edits failed", error=reason, frames=frames)

    def _show_progress(self, share: float, stage: str) -> None:
        self._awaited = f"{stage}, {share:.0%}"


def _describe(part: NeutralPart) -> str:
    count = len(part.neutral.sentences)
    if part.is_whole:
        return f"edits are fitted with all {count} neutral sentences (of {part.of} sampled, repetitions left out)"
    return f"edits are fitted with the first {count} of {part.of} neutral sentences"
