"""This process' copy of the head. It is swapped after every commit, and catches up when another process moves the head."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from service.domain.edit import Edit
from service.domain.errors import Corrupt, Gone, Unreadable
from service.lifecycle.checkpoints import Checkpoints
from service.lm.overlay import Overlay
from service.store import heads, stated_edits, versions
from service.store.database import Store


@dataclass(frozen=True)
class PublishedHead:
    """The version that answers by default from now on, with the edits that it states. It has its overlay since the epoch
    `overlay_epoch`, which is an earlier one if it differs from the head before it in what it states alone.
    """

    version: int
    epoch: int
    overlay: Overlay
    overlay_epoch: int
    stated: tuple[Edit, ...] = ()


class HeadFollower:
    """Gives each head to `on_published`, which makes the process answer with it: in order of epoch, and never an older one."""

    def __init__(self, store: Store, checkpoints: Checkpoints, on_published: Callable[[PublishedHead], None]) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._on_published = on_published
        self._lock = threading.Lock()
        self._current: PublishedHead | None = None
        self.degraded: str | None = None  # why this process does not answer with the head
        self.is_unreadable = False  # whether the reason is a file that this process cannot read, and another perhaps can

    @property
    def current(self) -> PublishedHead:
        """The version that this process answers with. There is one from the opening of the store on."""
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
        """Answer with an older version than the head, as long as the head cannot be loaded here. `degraded` holds the reason."""
        with self._lock:
            assert self._current is None, "a version is never replaced by an older one"
            self._on_published(published)
            self._current = published

    def mark_degraded(self, reason: str) -> None:
        """Set the reason why the head, which answers, is not the version that should."""
        with self._lock:
            self.degraded = reason

    def _degrade(self, reason: str, epoch: int, *, is_unreadable: bool) -> None:
        """Record that the head of an epoch cannot be loaded, unless a later head was swapped in meanwhile."""
        with self._lock:
            if self._current is None or epoch > self._current.epoch:
                self.degraded, self.is_unreadable = reason, is_unreadable

    def catch_up(self) -> bool:
        """Load the head and swap to it, if it is a later one; return whether it was. A head that cannot be loaded is tried
        again at the next call; until then `degraded` holds the reason.
        """
        with self._store.read() as connection:
            head = heads.read(connection)
            if self._current is not None and head.epoch <= self._current.epoch:
                return False
            version = versions.get(connection, head.version)
            overlay_epoch = heads.find_overlay_epoch(connection, head.epoch)
            stated = stated_edits.read(connection, head.version)
        try:
            overlay = self._checkpoints.get_overlay(version)
        except (Corrupt, Unreadable, Gone) as error:  # Gone: of another base model, which another process may have
            reason = f"version {version.number} cannot be loaded: {error.message}"
            self._degrade(reason, head.epoch, is_unreadable=not isinstance(error, Corrupt))
            return False
        self.swap(PublishedHead(head.version, head.epoch, overlay, overlay_epoch, stated))
        return True
