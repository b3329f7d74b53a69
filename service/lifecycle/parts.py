"""What the verbs of the worker work with."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.lifecycle.announce import Announcer
from service.lifecycle.editors import Editors
from service.lifecycle.follow import Follower
from service.lifecycle.overlays import Overlays
from service.lifecycle.settings import LifecycleSettings
from service.store.session import Store


def _now() -> datetime:
    return datetime.now(UTC)


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _at_once() -> None:
    """Nobody has to be given way to."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One process' share of the lifecycle. `give_way` is called between steps of a fit; `clock` never decides about leases."""

    store: Store
    overlays: Overlays
    editors: Editors
    follower: Follower
    announcer: Announcer = field(default_factory=Announcer)
    settings: LifecycleSettings = field(default_factory=LifecycleSettings)
    give_way: Callable[[], None] = _at_once
    clock: Callable[[], datetime] = _now
    no_edit_is_fitted: threading.Event = field(default_factory=_set)  # a retrain waits for it, between its steps and not for long
