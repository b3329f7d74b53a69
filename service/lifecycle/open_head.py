"""Opening a store: the head's bytes are loaded and checked before any prompt is answered. Damaged bytes are never served.

If this process cannot load the head, it answers with the nearest ancestor that it can load, and reports that it is degraded.
The head's row stays, and the process follows the head as soon as it can be loaded. Only a worker decides, under its fence, that
bytes are damaged: see `damage.py`.
"""

from dataclasses import dataclass

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.version import Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.head_follower import PublishedHead
from service.store import heads, stated_edits, versions


@dataclass(frozen=True)
class OpenedHead:
    """The version that a server answers with after opening its store. `degraded` says why it is not the head, or is None."""

    version: int
    epoch: int
    degraded: str | None = None


def open_head(context: LifecycleContext) -> OpenedHead:
    """Load and check the head, and answer with it; else with its nearest ancestor that this process can load."""
    if not context.follower.catch_up():
        context.follower.answer_with(_nearest_readable_ancestor(context))
    current = context.follower.current
    return OpenedHead(current.version, current.epoch, context.follower.degraded)


def _nearest_readable_ancestor(context: LifecycleContext) -> PublishedHead:
    """The nearest ancestor of the head that this process can load. Version 0 has no bytes."""
    with context.store.read() as connection:
        version = versions.get(connection, heads.read(connection).version)
    while True:
        version = read_parent(context, version)
        try:
            overlay = context.checkpoints.get_overlay(version)
        except (Corrupt, Unreadable, Gone):
            continue
        with context.store.read() as connection:
            epoch, stated = heads.read_epoch(connection, version.number), stated_edits.read(connection, version.number)
            return PublishedHead(version.number, epoch, overlay, heads.find_overlay_epoch(connection, epoch), stated)


def read_parent(context: LifecycleContext, version: Version) -> Version:
    """The parent of a version."""
    assert version.parent is not None, "version 0 can always answer"
    with context.store.read() as connection:
        return versions.get(connection, version.parent)
