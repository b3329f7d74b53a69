"""What is damaged, by the verdict of the one worker: bytes that it has read, and whose digest is not the one in their row.

A verdict is written under the fence. It is taken back as soon as the right bytes are there again, whoever put them back: a
checkpoint is named by its digest, so bytes that give it are the right ones. If the head itself is damaged, its nearest good
ancestor is published as a rollback and what falls out is queued again: nothing that was acknowledged is lost, only learned anew.
"""

import structlog

from service.domain.errors import Corrupt, Gone, Unreadable
from service.domain.version import Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.lease import Lease
from service.lifecycle.recover import read_parent
from service.lifecycle.rollback import roll_back
from service.lifecycle.settings import SERVICE
from service.lifecycle.verify import unmark
from service.store import events, heads, versions
from service.store.events import Event

log = structlog.get_logger("errata.damage")


def replace_damaged_head(context: LifecycleContext, lease: Lease) -> bool:
    """If the head's bytes are damaged, publish its nearest good ancestor; whether that was done.

    As long as something on the way there cannot be read, nothing is decided. Raises FenceLost or Stale.
    """
    if context.follower.degraded is None:
        return False
    with context.store.read() as connection:
        head = versions.get(connection, heads.read(connection).version)
    try:
        good = _nearest_good(context, lease, head)
    except Unreadable:
        return False
    if good.number == head.number:
        return False
    reason = f"the checkpoint of version {head.number} is damaged"
    roll_back(context, to=good.number, author=SERVICE, reason=reason, requeue=True, fence=lease.fence)
    context.follower.mark_degraded(f"{reason}; version {good.number} answers until its edits are applied again")
    return True


def update_damage_marks(context: LifecycleContext, lease: Lease) -> bool:
    """Mark the versions whose bytes were found damaged here, and unmark those whose bytes are right again; whether any were."""
    with context.store.read() as connection:
        marked = versions.read_corrupt_digests(connection)
    found = [digest for digest in context.checkpoints.damaged_digests if digest not in marked and _is_damaged(context, digest)]
    healed = [digest for digest in sorted(marked) if _is_good(context, digest)]
    changed = [_mark(context, lease, digest) for digest in found]
    changed += [_unmark(context, lease, digest) for digest in healed]
    return any(changed)


def _nearest_good(context: LifecycleContext, lease: Lease, version: Version) -> Version:
    """The version itself or the first of its ancestors whose bytes are good, with what is damaged on the way marked."""
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
    """Whether bytes are right. What cannot be read now is no worse than it was."""
    try:
        context.checkpoints.get(digest)
    except (Corrupt, Unreadable):
        return False
    return True


def _is_damaged(context: LifecycleContext, digest: str) -> bool:
    """Whether bytes are wrong. What cannot be read now is not known to be."""
    try:
        context.checkpoints.get(digest)
    except Corrupt:
        return True
    except Unreadable:
        pass
    return False


def _mark(context: LifecycleContext, lease: Lease, digest: str) -> bool:
    """Mark every version with these bytes; whether any was not marked yet."""
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        numbers = versions.mark_corrupt(connection, digest)
        happened = [Event(type="version.corrupt", author=SERVICE, version=number) for number in numbers]
        events.write(connection, happened, now=context.clock())
    if numbers:
        log.error("checkpoint is damaged", versions=numbers, digest=digest)
    return bool(numbers)


def _unmark(context: LifecycleContext, lease: Lease, digest: str) -> bool:
    with context.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, lease.fence)
        numbers = unmark(connection, digest, author=SERVICE, now=context.clock())
    if numbers:
        log.info("checkpoint is right again", versions=numbers, digest=digest)
    return bool(numbers)
