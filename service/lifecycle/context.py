"""What the verbs of the worker work with."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.editors import Editors
from service.lifecycle.head_follower import HeadFollower
from service.lifecycle.notifications import Announcer
from service.lifecycle.settings import LifecycleSettings
from service.store.database import Store


def _now() -> datetime:
    return datetime.now(UTC)


class EditFitsIdle(threading.Event):
    """Set while no fit is under way; several may be at once, so it is the last that sets it again."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way = 0
        self._counting = threading.Lock()
        self.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """One more fit is under way."""
        with self._counting:
            self._under_way += 1
            self.clear()
        try:
            yield
        finally:
            with self._counting:
                self._under_way -= 1
                if not self._under_way:
                    self.set()


EDIT_FITS_WAIT_S = 5.0  # longest wait for a fit of edits, which takes about one; a stop waits as long at most


def _at_once() -> None:
    """Nobody has to be given way to."""


def _is_sound() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class LifecycleContext:
    """One process' share of the lifecycle. `yield_to_answers` is called between steps of a fit; `clock` decides about no lease.

    Where the base model is not sound any more nothing may be fitted: another process, or the next one of this, does the work.
    """

    store: Store
    checkpoints: Checkpoints
    editors: Editors
    follower: HeadFollower
    announcer: Announcer = field(default_factory=Announcer)
    settings: LifecycleSettings = field(default_factory=LifecycleSettings)
    yield_to_answers: Callable[[], None] = _at_once
    is_sound: Callable[[], bool] = _is_sound
    clock: Callable[[], datetime] = _now
    edit_fits_idle: EditFitsIdle = field(default_factory=EditFitsIdle)

    def yield_to_edits(self) -> None:
        """Between two steps of what nobody waits for: a fit of edits ends first (but is not waited for for ever), and answers."""
        self.edit_fits_idle.wait(EDIT_FITS_WAIT_S)
        self.yield_to_answers()
