"""The reservoir of real prompts for retrains, filled beside the requests: no answer waits for it or fails because of it."""

import contextlib
import queue
import random
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from service.domain.errors import ServiceError
from service.store import reservoir
from service.store.database import Store

MAX_WAITING = 1_000  # prompts that wait to be written; further prompts are dropped
WRITE_BATCH = 100  # prompts in one transaction
MAX_CHARACTERS = 2_000  # a longer prompt is no example of usual prompts, and would make the table large
log = structlog.get_logger("errata.reservoir")


class PromptReservoir:
    """A uniform sample of `size` of the offered prompts. Size 0 is off: no prompt is stored, and stored prompts are removed.

    `draw` returns lots in [0, reservoir.LOTS); tests seed it.
    """

    def __init__(
        self,
        store: Store,
        size: int,
        *,
        draw: Callable[[], int] | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._store, self._size, self._clock = store, size, clock or store.clock
        generator = random.SystemRandom()
        self._draw = draw or (lambda: generator.randrange(reservoir.LOTS))
        self._waiting: queue.Queue[tuple[int, str] | None] = queue.Queue(MAX_WAITING)
        self._bound: int | None = None
        self._thread = threading.Thread(target=self._run, name="errata-reservoir", daemon=True)

    @property
    def is_on(self) -> bool:
        """Whether prompts are stored."""
        return self._size > 0

    def start(self) -> None:
        """Remove stored prompts beyond the size (all of them when off), and accept offers from now on."""
        with self._store.write() as connection:
            if not self.is_on:
                reservoir.clear(connection)
                return
            self._bound = reservoir.offer(connection, (), size=self._size, now=self._clock())
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write the prompts that wait, and end the thread."""
        if self._thread.ident is not None:
            try:
                self._waiting.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)

    def offer(self, prompt: str) -> None:
        """Offer a prompt that was answered. Returns at once and raises nothing."""
        if not self.is_on or len(prompt) > MAX_CHARACTERS:
            return
        lot = self._draw()
        if self._bound is not None and lot >= self._bound:
            return
        with contextlib.suppress(queue.Full):  # a full queue costs the sample one prompt
            self._waiting.put_nowait((lot, prompt))

    def sample(self, count: int | None = None) -> Sequence[str]:
        """At most `count` of the stored prompts, always in the same order."""
        if not self.is_on:
            return ()
        with self._store.read() as connection:
            return reservoir.sample(connection, self._size if count is None else min(count, self._size))

    def _run(self) -> None:
        is_closed = False
        while not is_closed:
            batch = [self._waiting.get()]
            while len(batch) < WRITE_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            is_closed = None in batch
            self._write([offer for offer in batch if offer is not None])

    def _write(self, offers: Sequence[tuple[int, str]]) -> None:
        try:
            with self._store.write() as connection:
                self._bound = reservoir.offer(connection, offers, size=self._size, now=self._clock())
        except ServiceError as error:
            log.warning("prompts were not kept", count=len(offers), error=type(error).__name__)
        except Exception as error:  # the thread continues if the database refuses a text
            log.error("prompts were not kept", count=len(offers), error=type(error).__name__)
