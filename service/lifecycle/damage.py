"""Marking damaged versions: the one worker marks a version whose bytes do not have the digest of its row.

Marks are written under the fence. A mark is removed as soon as the right bytes are there again: a checkpoint is named by its
digest, so bytes with that digest are right. If the head itself is damaged, its nearest good ancestor is published as a
rollback, and the edits that leave the live set are queued again: no acknowledged edit is lost.
"""

import structlog

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.version import Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.lease import Lease
from service.lifecycle.open_head import read_parent
from service.lifecycle.rollback import roll_back
from service.lifecycle.settings import SERVICE
from service.lifecycle.verify import unmark
from service.store import events, heads, versions
from service.store.events import Event

log = structlog.get_logger("errata.damage")


def replace_damaged_head(context: LifecycleContext, lease: Lease) -> bool:
    """If the head's bytes are damaged, publish its nearest good ancestor; return whether this was done.

    Nothing is decided while a checkpoint on the way cannot be read. Raises FenceLost or Stale.
    """
    if context.follower.degraded is None:
        return False
    with context.store.read() as connection:
        head = versions.get(connection, heads.read(connection).version)
    try:
        ancestor = _nearest_good_version(context, lease, head)
    except Unreadable:
        return False
    if ancestor.number == head.number:
        return False
    reason = f"the checkpoint of version {head.number} is damaged"
    roll_back(context, to=ancestor.number, author=SERVICE, reason=reason, requeue=True, fence=lease.fence)
    context.follower.mark_degraded(f"{reason}; version {ancestor.number} answers until its edits are applied again")
    return True


def update_damage_marks(context: LifecycleContext, lease: Lease) -> bool:
    """Mark the versions whose bytes this process found damaged, and unmark those whose bytes are right again; return whether
    any changed.
    """
    with context.store.read() as connection:
        marked_digests = versions.read_corrupt_digests(connection)
    damaged = [
        digest for digest in context.checkpoints.damaged_digests if digest not in marked_digests and _is_damaged(context, digest)
    ]
    healed = [digest for digest in sorted(marked_digests) if _is_good(context, digest)]
    changes = [_mark(context, lease, digest) for digest in damaged]
    changes += [_unmark(context, lease, digest) for digest in healed]
    return any(changes)


def _nearest_good_version(context: LifecycleContext, lease: Lease, version: Version) -> Version:
    """The version itself or its nearest ancestor with good bytes. Damaged versions on the way are marked."""
    while True:
        try:
            context.checkpoints.get_overlay(version)
            return version
        except Corrupt:
            assert version.digest is not None
            _mark(context, lease, version.digest)
        except Gone:
            pass  # an ancestor whose bytes were given up on purpose
        version = read_parent(context, version)


def _is_good(context: LifecycleContext, digest: str) -> bool:
    """Whether bytes are right. A file that cannot be read now does not count as right."""
    try:
        context.checkpoints.get(digest)
    except (Corrupt, Unreadable):
        return False
    return True


def _is_damaged(context: LifecycleContext, digest: str) -> bool:
    """Whether bytes are wrong. A file that cannot be read now does not count as wrong."""
    try:
        context.checkpoints.get(digest)
    except Corrupt:
        return True
    except Unreadable:
        pass
    return False


def _mark(context: LifecycleContext, lease: Lease, digest: str) -> bool:
    """Mark every version with these bytes; return whether any was not marked yet."""
    with fenced_write(context, lease.fence) as (connection, _):
        numbers = versions.mark_corrupt(connection, digest)
        new_events = [Event(type="version.corrupt", author=SERVICE, version=number) for number in numbers]
        events.write(connection, new_events, now=context.clock())
    if numbers:
        log.error("checkpoint is damaged", versions=numbers, digest=digest)
    return bool(numbers)


def _unmark(context: LifecycleContext, lease: Lease, digest: str) -> bool:
    with fenced_write(context, lease.fence) as (connection, _):
        numbers = unmark(connection, digest, author=SERVICE, now=context.clock())
    if numbers:
        log.info("checkpoint is right again", versions=numbers, digest=digest)
    return bool(numbers)
