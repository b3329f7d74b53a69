"""Collecting: versions beyond retention give up their live set, and their checkpoint goes to the trash and after a term for good.

Only what a row of this store names, or named, is ever touched: a file that nobody knows may be of a backup that is newer than the
database, and is left where it is.
"""

import time
from pathlib import Path

import structlog

from service.domain.errors import Conflict
from service.lifecycle import trash
from service.lifecycle.context import LifecycleContext
from service.lifecycle.settings import SERVICE
from service.lifecycle.store_identity import is_marked
from service.lm.checkpoint import TEMPORARY
from service.lm.checkpoint_files import CHECKPOINT_SUFFIX
from service.store import events, heads, versions
from service.store.events import Event

log = structlog.get_logger("errata.collect")


def collect(context: LifecycleContext, *, fence: int | None = None) -> int:
    """Collect what may go; how many files went, to the trash or out of it. Only under the head's lock, so that no rollback and no
    publication picks what is going. Raises FenceLost if another worker has taken over.
    """
    folder, settings = context.checkpoints.folder, context.settings
    if not is_marked(folder):
        return 0
    with context.store.write() as connection:
        head = heads.lock(connection)
        heads.check_fence(connection, fence)
        going = versions.find_beyond_retention(
            connection, head=head.version, keep_last=settings.keep_last, keep_every=settings.keep_every
        )
        versions.collect(connection, going)
        happened = [Event(type="version.collected", author=SERVICE, version=number) for number in going]
        events.write(connection, happened, now=context.clock())
        named = versions.read_unneeded_digests(connection)
        old = [digest for digest in sorted(named) if _is_old(folder / f"{digest}{CHECKPOINT_SUFFIX}", settings.orphan_s)]
        discarded = [digest for digest in old if _discard(context, digest)]
    deleted = trash.empty(folder, named, term_s=settings.trash_s)
    unfinished = _delete_unfinished(folder, settings.orphan_s)
    if going or discarded or deleted or unfinished:
        counts = {"versions": len(going), "to_trash": len(discarded), "deleted": len(deleted), "unfinished": unfinished}
        log.info("collected", **counts, trash_days=round(settings.trash_s / 86_400, 2))
    return len(discarded) + len(deleted) + unfinished


def pin(context: LifecycleContext, number: int, *, author: str, pinned: bool = True) -> None:
    """Keep a version for good, or let it go with the others. Raises NotFound, or Conflict if it was collected already."""
    with context.store.write() as connection:
        heads.lock(connection)
        if versions.get(connection, number).status == "collected":
            raise Conflict("this version was collected already", field="version")
        versions.pin(connection, number, pinned)
        kind = "version.pinned" if pinned else "version.unpinned"
        events.write(connection, [Event(type=kind, author=author, version=number)], now=context.clock())


def _is_old(path: Path, age_s: float) -> bool:
    """Whether a plain file is older than a publication takes: one under way may be about to name the same bytes again."""
    try:
        return path.is_file() and time.time() - path.stat().st_mtime > age_s
    except OSError:
        return False


def _discard(context: LifecycleContext, digest: str) -> bool:
    context.checkpoints.forget(digest)
    return trash.discard(context.checkpoints.folder, digest)


def _delete_unfinished(folder: Path, age_s: float) -> int:
    """Delete what was being written when its process ended: it has never been a checkpoint."""
    left = [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name) and _is_old(path, age_s)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
