"""Collecting: versions beyond retention give up their checkpoint and live set, and files without a row go after an hour."""

from service.domain.errors import Conflict
from service.lifecycle.parts import Parts
from service.lifecycle.settings import SERVICE
from service.store import events, heads, versions
from service.store.events import Event

SUFFIX = ".safetensors"


def collect(parts: Parts) -> int:
    """Collect what may go; how many files went. Only under the head's lock, so that no rollback picks a version that is going."""
    now = parts.clock()
    settings = parts.settings
    with parts.store.write() as connection:
        head = heads.lock(connection)
        going = versions.beyond_retention(
            connection, head=head.version, keep_last=settings.keep_last, keep_every=settings.keep_every
        )
        versions.collect(connection, going)
        happened = [Event(type="version.collected", author=SERVICE, version=number) for number in going]
        events.write(connection, happened, now=now)
        kept = versions.digests_kept(connection)
    removed = 0
    for path in parts.overlays.folder.iterdir():
        is_old = now.timestamp() - path.stat().st_mtime > settings.orphan_s
        if path.is_file() and is_old and not (path.name.endswith(SUFFIX) and path.name.removesuffix(SUFFIX) in kept):
            parts.overlays.forget(path.name.removesuffix(SUFFIX))
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def pin(parts: Parts, number: int, *, author: str, pinned: bool = True) -> None:
    """Keep a version for good, or let it go with the others. Raises NotFound, or Conflict if it was collected already."""
    with parts.store.write() as connection:
        heads.lock(connection)
        if versions.get(connection, number).status == "collected":
            raise Conflict("this version was collected already", field="version")
        versions.pin(connection, number, pinned)
        kind = "version.pinned" if pinned else "version.unpinned"
        events.write(connection, [Event(type=kind, author=author, version=number)], now=parts.clock())
