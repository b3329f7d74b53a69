"""The dependencies of the worker's verbs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime

from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.edit_texts import EditTexts
from service.lifecycle.edited_subjects import EditedSubjects
from service.lifecycle.editors import Editors, EditorsByPart
from service.lifecycle.head_follower import HeadFollower
from service.lifecycle.notifications import Announcer
from service.lifecycle.settings import LifecycleSettings
from service.store.database import Store


def _now() -> datetime:
    return datetime.now(UTC)


class EditFitsIdle(threading.Event):
    """An event that is set while no fit of edits runs. Fits may overlap: the event is set when the last of them ends."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._lock = threading.Lock()
        self.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Mark one more fit as running."""
        with self._lock:
            self._count += 1
            self.clear()
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if not self._count:
                    self.set()


EDIT_FITS_WAIT_S = 5.0  # longest wait for fits of edits, which take about 1 s; a stop of the process waits as long at most


def _yield_nothing() -> None:
    """No request waits."""


def _is_sound() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class LifecycleContext:
    """What the verbs of one process share. `yield_to_answers` is called between the steps of a fit. `clock` never decides about
    leases.

    While `is_sound` returns False, the base model is not as it should be and nothing may be fitted: another process, or the
    next one, does the work.

    A retrain waits for `edit_fits_idle` between its steps, for a bounded time.
    """

    store: Store
    checkpoints: Checkpoints
    follower: HeadFollower
    announcer: Announcer = field(default_factory=Announcer)
    settings: LifecycleSettings = field(default_factory=LifecycleSettings)
    yield_to_answers: Callable[[], None] = _yield_nothing
    is_sound: Callable[[], bool] = _is_sound
    clock: Callable[[], datetime] = _now
    edit_fits_idle: EditFitsIdle = field(default_factory=EditFitsIdle)

    def yield_to_edits(self) -> None:
        """Let running fits of edits end, for a bounded time, and then waiting prompts. For work that nobody waits for, between
        its steps.
        """
        self.edit_fits_idle.wait(EDIT_FITS_WAIT_S)
        self.yield_to_answers()

    def with_editors(self, editors: EditorsByPart) -> "EditingContext":
        """The same context for the verbs that fit."""
        return EditingContext(**{each.name: getattr(self, each.name) for each in fields(self)}, editors_by_part=editors)


@dataclass(frozen=True, kw_only=True)
class EditingContext(LifecycleContext):
    """What the verbs that fit or judge need besides. A server that fits nothing has no editors."""

    editors_by_part: EditorsByPart
    edited_subjects: EditedSubjects = field(default_factory=EditedSubjects)
    edit_texts: EditTexts = field(default_factory=EditTexts)

    @property
    def editors(self) -> Editors:
        """The editors for what does not depend on the number of neutral sentences, and for the next job."""
        return self.editors_by_part.newest
