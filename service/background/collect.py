"""Collecting: versions beyond retention lose their live set; their checkpoints go to the trash and are deleted after a term.

Only checkpoints that a row of this store names, or has named, are moved: an unknown one may belong to a backup that is newer
than the database.
"""

import structlog

from service.domain.errors import Conflict
from service.lifecycle.context import LifecycleContext
from service.lifecycle.fenced import fenced_write
from service.lifecycle.settings import SERVICE
from service.store import events, heads, versions
from service.store.events import Event

log = structlog.get_logger("errata.collect")


def collect(context: LifecycleContext, *, fence: int | None = None) -> int:
    """Collect versions beyond retention; the number of checkpoints that were moved to the trash or deleted.

    The head's lock is held, so that no rollback and no publication picks a version that is collected. Raises FenceLost if another
    worker has the lease.
    """
    checkpoints, settings = context.checkpoints, context.settings
    if checkpoints.store.find_fault() is not None:
        return 0
    with fenced_write(context, fence) as (connection, head):
        numbers = versions.find_beyond_retention(
            connection, head=head.version, keep_last=settings.keep_last, keep_every=settings.keep_every
        )
        versions.collect(connection, numbers)
        collected = [Event(type="version.collected", author=SERVICE, version=number) for number in numbers]
        events.write(connection, collected, now=context.clock())
        unneeded = versions.read_unneeded_digests(connection)
        # A younger one may be about to be named again by a publication under way.
        old = [digest for digest in sorted(unneeded) if checkpoints.store.is_older(digest, settings.orphan_s)]
        discarded = [digest for digest in old if checkpoints.discard(digest)]
    deleted = checkpoints.store.empty_trash(unneeded, term_s=settings.trash_s)
    unfinished = checkpoints.store.delete_unfinished(settings.orphan_s)
    if numbers or discarded or deleted or unfinished:
        counts = {"versions": len(numbers), "to_trash": len(discarded), "deleted": len(deleted), "unfinished": unfinished}
        log.info("collected", **counts, trash_days=round(settings.trash_s / 86_400, 2))
    return len(discarded) + len(deleted) + unfinished


def pin(context: LifecycleContext, number: int, *, author: str, pinned: bool = True) -> None:
    """Pin a version, so that it is never collected, or unpin it. Raises NotFound, or Conflict if it was collected already."""
    with context.store.write() as connection:
        heads.lock(connection)
        if versions.get(connection, number).status == "collected":
            raise Conflict("this version was collected already", field="version")
        versions.pin(connection, number, pinned)
        event_type = "version.pinned" if pinned else "version.unpinned"
        events.write(connection, [Event(type=event_type, author=author, version=number)], now=context.clock())
