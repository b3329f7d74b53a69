"""Versions of the kind `context`: the overlay and the live set of the head under a new number, and the edits that wait now.

They are published in the request that accepts or takes back an edit, so that the next answer has it; the worker publishes what
such a request left out. They need no fence: no fit is disturbed, and a fit that was begun before may still be published.
"""

from dataclasses import replace

import structlog
from sqlalchemy.engine import Connection

from service.domain.errors import Stale
from service.domain.version import CONTEXT, Head, Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.head_follower import PublishedHead
from service.lifecycle.head_snapshot import load_head_overlay
from service.lifecycle.settings import SERVICE
from service.lifecycle.stated_edits import find_stated, write_stated
from service.store import events, heads, stated_edits, versions
from service.store.events import Event

log = structlog.get_logger("errata.context")


def publish_stated(context: LifecycleContext) -> Version | None:
    """Publish a version that states what waits now; None if the head does, or if it is of another base model than this process.

    Raises Stale if the head moved meanwhile, Unreadable if its overlay cannot be loaded, Unavailable without a database.
    """
    with context.store.read() as connection:
        seen = heads.read(connection)
        if _is_current(connection, context, seen):
            return None
        parent = versions.get(connection, seen.version)
    overlay = load_head_overlay(context, parent)  # before the head's lock, as it may be read from a disk
    with context.store.write() as connection:
        head = heads.lock(connection)
        if head.epoch != seen.epoch:
            raise Stale("the head has moved meanwhile")
        if _is_current(connection, context, head):
            return None
        version, epoch = _insert(connection, context, head, parent)
        overlay_epoch = heads.find_overlay_epoch(connection, epoch)
        stated = stated_edits.read(connection, version.number)
        crash_point("context.before_commit")
    crash_point("context.after_commit")
    context.follower.swap(PublishedHead(version.number, epoch, overlay, overlay_epoch, stated))
    log.info("published", version=version.number, kind=version.kind, stated=len(stated))
    return version


def _is_current(connection: Connection, context: LifecycleContext, head: Head) -> bool:
    """Whether there is nothing to publish."""
    before = stated_edits.read_ids(connection, head.version)
    if context.settings.tier.mode == "off" and not before:
        return True
    if head.base_fingerprint != context.checkpoints.fingerprint:
        return True
    live_set = versions.read_live_set(connection, head.version)
    return before == find_stated(connection, context, live_set, stated_edits.read_withdrawn(connection, head.version))


def _insert(connection: Connection, context: LifecycleContext, head: Head, parent: Version) -> tuple[Version, int]:
    """Write the version; return it with its epoch."""
    now = context.clock()
    moved = heads.move(connection, head, fence=None, reason=None, author=SERVICE, now=now)
    version = replace(
        parent,
        number=moved.version,
        kind=CONTEXT,
        parent=parent.number,
        created_at=now,
        author=SERVICE,
        reason=None,
        restores=None,
        pinned=False,
    )
    live_set = versions.read_live_set(connection, parent.number)
    versions.insert(connection, version, live_set, fence=None, job_id=None)
    write_stated(connection, context, version, live_set)
    written = [Event(type="version.published", author=SERVICE, version=moved.version, data={"kind": CONTEXT})]
    events.write(connection, written, now=now)
    return version, moved.epoch
