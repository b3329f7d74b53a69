"""The head as one transaction or read saw it."""

from dataclasses import dataclass

from service.domain.errors import Corrupt, Unreadable
from service.domain.liveset import LiveSet
from service.domain.version import Head, Version
from service.lifecycle.context import LifecycleContext
from service.lm.overlay import Overlay
from service.store import heads, versions


@dataclass(frozen=True)
class HeadSnapshot:
    """What a job works on: the head with its version row and live set, as one transaction or read saw them."""

    row: Head
    version: Version
    live_set: LiveSet


def read_head(context: LifecycleContext) -> HeadSnapshot:
    """The head as it is now, from one consistent look (the head is read again, in case it moved while its live set was read)."""
    while True:
        with context.store.read() as connection:
            head = heads.read(connection)
            found = HeadSnapshot(head, versions.get(connection, head.version), versions.read_live_set(connection, head.version))
            if heads.read(connection).epoch == head.epoch:
                return found


def load_head_overlay(context: LifecycleContext, version: Version) -> Overlay:
    """What a fit starts from: the head's overlay, from memory where this process answers with it. Raises Unreadable if it cannot
    be had, also for a damaged one: that is no fault of what is fitted, and the head will be another soon.
    """
    current = context.follower.current
    if current.version == version.number:
        return current.overlay
    try:
        return context.checkpoints.get_overlay(version)
    except Corrupt as damaged:
        raise Unreadable("the checkpoint of the head is damaged; it is being replaced") from damaged
