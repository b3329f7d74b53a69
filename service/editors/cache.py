"""A keyed cache for results that many fits need and that are slow to compute. Knows no model."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass(eq=False)
class _Entry:
    future: Future[Any] = field(default_factory=Future)
    last_use: int = 0  # the clock at the last request; 0: computed ahead of need, and not requested yet


class KeyedCache:
    """Values by key, shared by threads. Concurrent requests for one key share one computation; other keys do not wait.

    `key[0]` is the kind of the value. Of each kind, the `keep` most recently used values stay. The cache changes speed alone.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple, _Entry] = {}
        self._clock = itertools.count(1)
        self._lock = threading.Lock()  # never held during a computation

    def get_or_make(self, key: tuple, make: Callable[[], Value], *, keep: int, ahead: bool = False) -> Value:
        """The value of a key, computed by `make` if it is absent. If `make` raises, so does this, and the next request
        computes again.

        `ahead` marks a value that may never be needed. Until its first use such a value is evicted first, so that a preparation
        in vain does not evict values in use.
        """
        while True:
            with self._lock:
                is_new = key not in self._entries
                entry = self._entries.setdefault(key, _Entry())
                if not ahead:
                    entry.last_use = next(self._clock)
            if is_new:
                return self._make(key, make, entry, keep)
            try:
                value: Value = entry.future.result()
                return value
            except CancelledError:
                continue

    def _make(self, key: tuple, make: Callable[[], Value], entry: _Entry, keep: int) -> Value:
        try:
            value = make()
        except BaseException:
            with self._lock:
                del self._entries[key]
            entry.future.cancel()
            raise
        with self._lock:
            entry.future.set_result(value)
            self._evict(key, keep)
        return value

    def _evict(self, newest: tuple, keep: int) -> None:
        others = [key for key, entry in self._entries.items() if key[0] == newest[0] and key != newest and entry.future.done()]
        others.sort(key=lambda key: self._entries[key].last_use)  # stable: of the unused values the oldest goes first
        for key in others[: max(0, len(others) + 1 - keep)]:
            del self._entries[key]
