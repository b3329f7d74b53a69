"""Keeping real prompts for retrains, beside the requests they came with: no answer waits for it and none fails by it."""

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

MAX_WAITING = 1_000  # prompts that may wait to be written; more are not kept
WRITE_BATCH = 100
MAX_CHARACTERS = 2_000  # characters; a longer prompt is no example of what is usually asked, and would make the table large
log = structlog.get_logger("errata.reservoir")


class PromptReservoir:
    """A uniform sample of the prompts it was given, `size` of them. Size 0 is off: nothing is kept, and what was is removed.

    `draw` gives lots in [0, reservoir.LOTS); tests seed it.
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
        chance = random.SystemRandom()
        self._draw = draw or (lambda: chance.randrange(reservoir.LOTS))
        self._waiting: queue.Queue[tuple[int, str] | None] = queue.Queue(MAX_WAITING)
        self._bound: int | None = None
        self._thread = threading.Thread(target=self._run, name="errata-reservoir", daemon=True)

    @property
    def is_on(self) -> bool:
        """Whether prompts are kept."""
        return self._size > 0

    def start(self) -> None:
        """Remove what is over the size (all of it when off), and keep prompts from now on."""
        with self._store.write() as connection:
            if not self.is_on:
                reservoir.clear(connection)
                return
            self._bound = reservoir.offer(connection, (), size=self._size, now=self._clock())
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and end."""
        if self._thread.ident is not None:
            try:
                self._waiting.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)

    def offer(self, prompt: str) -> None:
        """Perhaps keep a prompt that was answered. Returns at once and raises nothing."""
        if not self.is_on or len(prompt) > MAX_CHARACTERS:
            return
        lot = self._draw()
        if self._bound is not None and lot >= self._bound:
            return
        with contextlib.suppress(queue.Full):  # then it is one prompt less in a sample
            self._waiting.put_nowait((lot, prompt))

    def sample(self, count: int | None = None) -> Sequence[str]:
        """The prompts kept, always in the same order; at most `count`."""
        if not self.is_on:
            return ()
        with self._store.read() as connection:
            return reservoir.sample(connection, self._size if count is None else min(count, self._size))

    def _run(self) -> None:
        ended = False
        while not ended:
            some = [self._waiting.get()]
            while len(some) < WRITE_BATCH and not self._waiting.empty():
                some.append(self._waiting.get())
            ended = None in some
            self._keep([one for one in some if one is not None])

    def _keep(self, some: Sequence[tuple[int, str]]) -> None:
        try:
            with self._store.write() as connection:
                self._bound = reservoir.offer(connection, some, size=self._size, now=self._clock())
        except ServiceError as error:
            log.warning("prompts were not kept", count=len(some), error=type(error).__name__)
        except Exception as error:  # the thread outlives what a database may say to a text
            log.error("prompts were not kept", count=len(some), error=type(error).__name__)
