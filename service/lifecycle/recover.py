"""Opening a store: the head's bytes are loaded and checked before anybody is answered. Damaged ones are never served.

If this process cannot have them, it answers with the nearest ancestor that it can read and says so; the row of the head stays as
it is, and the head is followed as soon as it can be read. Only a worker, under its fence, decides that bytes are damaged:
`damage.py`.
"""

from dataclasses import dataclass

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.version import Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.head_follower import PublishedHead
from service.store import heads, versions


@dataclass(frozen=True)
class OpenedHead:
    """What a server answers with after opening its store. `degraded` says why it is not the version that the row names."""

    version: int
    epoch: int
    degraded: str | None = None


def open_head(context: LifecycleContext) -> OpenedHead:
    """Load the head, verify it, and answer with it; or with its nearest ancestor whose bytes this process can read."""
    if not context.follower.catch_up():
        context.follower.answer_with(_nearest_readable(context))
    current = context.follower.current
    return OpenedHead(current.version, current.epoch, context.follower.degraded)


def _nearest_readable(context: LifecycleContext) -> PublishedHead:
    """The first of the head's ancestors that can answer here. Version 0 has no bytes that could be missing."""
    with context.store.read() as connection:
        version = versions.get(connection, heads.read(connection).version)
    while True:
        version = read_parent(context, version)
        try:
            overlay = context.checkpoints.get_overlay(version)
        except (Corrupt, Unreadable, Gone):
            continue
        with context.store.read() as connection:
            return PublishedHead(version.number, heads.read_epoch(connection, version.number), overlay)


def read_parent(context: LifecycleContext, version: Version) -> Version:
    """The version that one came from."""
    assert version.parent is not None, "version 0 can always answer"
    with context.store.read() as connection:
        return versions.get(connection, version.parent)
