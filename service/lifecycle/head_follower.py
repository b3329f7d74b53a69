"""This process' copy of the head: swapped after every commit, and caught up when another process moved it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from service.domain.errors import Corrupt, Unreadable
from service.lifecycle.checkpoints import Checkpoints
from service.lm.overlay import Overlay
from service.store import heads, versions
from service.store.database import Store


@dataclass(frozen=True)
class PublishedHead:
    """A version that answers by default from now on."""

    version: int
    epoch: int
    overlay: Overlay


class HeadFollower:
    """Hands each head to `on_published` (which makes the process answer with it), in order of epoch and never an older one."""

    def __init__(self, store: Store, checkpoints: Checkpoints, on_published: Callable[[PublishedHead], None]) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._on_published = on_published
        self._lock = threading.Lock()
        self._current: PublishedHead | None = None
        self.degraded: str | None = None  # why this process does not answer with the head that the row names
        self.is_unreadable = False  # whether that is for what this process cannot read, and another perhaps can

    @property
    def current(self) -> PublishedHead:
        """What this process answers with; there is one as soon as the store was opened."""
        assert self._current is not None
        return self._current

    def swap(self, published: PublishedHead) -> None:
        """Answer with a version from now on, unless a later one is in place already."""
        with self._lock:
            if self._current is None or published.epoch > self._current.epoch:
                self._on_published(published)
                self._current = published
                self.degraded, self.is_unreadable = None, False

    def answer_with(self, published: PublishedHead) -> None:
        """Answer with an older version than the row names as long as that one cannot be had here: `degraded` says why."""
        with self._lock:
            assert self._current is None, "what answers is not replaced by something older"
            self._on_published(published)
            self._current = published

    def mark_degraded(self, reason: str) -> None:
        """Say why the version that answers, which the row names, is not the one that should."""
        with self._lock:
            self.degraded = reason

    def _degrade(self, reason: str, epoch: int, *, is_unreadable: bool) -> None:
        """Note that the head of an epoch is not to be had, unless another has been swapped in since that was found out."""
        with self._lock:
            if self._current is None or epoch > self._current.epoch:
                self.degraded, self.is_unreadable = reason, is_unreadable

    def catch_up(self) -> bool:
        """Load and swap to the head that the row names, if it is another one; whether it was. What cannot be loaded is tried
        again at the next call, and `degraded` says why until then.
        """
        with self._store.read() as connection:
            head = heads.read(connection)
            if self._current is not None and head.epoch <= self._current.epoch:
                return False
            version = versions.get(connection, head.version)
        try:
            overlay = self._checkpoints.get_overlay(version)
        except (Corrupt, Unreadable) as error:
            said = f"version {version.number} cannot be loaded: {error.message}"
            self._degrade(said, head.epoch, is_unreadable=isinstance(error, Unreadable))
            return False
        self.swap(PublishedHead(head.version, head.epoch, overlay))
        return True
