"""What many fits need and is slow to make, made once and kept for the next one. Knows no model."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

Made = TypeVar("Made")


@dataclass(eq=False)
class _Entry:
    future: Future[Any] = field(default_factory=Future)
    used: int = 0  # when it was asked for last; 0: it was made ahead, and nobody has asked yet


class KeyedCache:
    """Things by name, shared by threads: who asks for one that is being made waits for that one alone, and for no other.

    Of one kind, `name[0]`, the `keep` used last stay. Only speed depends on what is here.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple, _Entry] = {}
        self._clock = itertools.count(1)
        self._lock = threading.Lock()  # never held while something is made

    def ready(self, name: tuple, make: Callable[[], Made], *, keep: int, ahead: bool = False) -> Made:
        """What `make` gives, or gave for the same name before. Raises what `make` raises; then the next who asks makes it.

        `ahead` says that it may never be used. Until it is, it is the first to go: what was prepared in vain does not drive out
        what is in use.
        """
        while True:
            with self._lock:
                is_new = name not in self._entries
                entry = self._entries.setdefault(name, _Entry())
                if not ahead:
                    entry.used = next(self._clock)
            if is_new:
                return self._make(name, make, entry, keep)
            try:
                made: Made = entry.future.result()
                return made
            except CancelledError:
                continue

    def _make(self, name: tuple, make: Callable[[], Made], entry: _Entry, keep: int) -> Made:
        try:
            made = make()
        except BaseException:
            with self._lock:
                del self._entries[name]
            entry.future.cancel()
            raise
        with self._lock:
            entry.future.set_result(made)
            self._make_room(name, keep)
        return made

    def _make_room(self, newest: tuple, keep: int) -> None:
        others = [
            name for name, entry in self._entries.items() if name[0] == newest[0] and name != newest and entry.future.done()
        ]
        others.sort(key=lambda name: self._entries[name].used)  # stable: of those nobody has used the oldest goes first
        for name in others[: max(0, len(others) + 1 - keep)]:
            del self._entries[name]
