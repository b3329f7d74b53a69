"""Opening a store: the head's bytes are loaded and checked before anybody is answered. Damaged ones are never served.

If they are damaged, the nearest good ancestor is published as a rollback, and what falls out is queued again: nothing that was
acknowledged is lost, the model only has to learn it once more.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from service.domain.errors import Corrupt, Gone
from service.domain.version import Version
from service.lifecycle.follow import Published
from service.lifecycle.parts import Parts
from service.lifecycle.rollback import roll_back
from service.lifecycle.settings import SERVICE
from service.store import events, heads, versions
from service.store.events import Event
from service.store.session import Store


@dataclass(frozen=True)
class Opened:
    """What a server answers with after opening its store. `degraded` says why it is not the version that it was."""

    version: int
    epoch: int
    degraded: str | None = None


def found_store(store: Store, *, fingerprint: str, name: str, now: datetime | None = None) -> None:
    """Make the first rows of a new store, or check an old one. Raises Conflict if it was made with another base model."""
    with store.write() as connection:
        heads.found(connection, fingerprint=fingerprint, name=name, author=SERVICE, now=now or datetime.now(UTC))


def open_head(parts: Parts) -> Opened:
    """Load the head, verify it, and swap to it; or to its nearest good ancestor, marking what is damaged."""
    with parts.store.read() as connection:
        head = heads.read(connection)
        version = versions.get(connection, head.version)
    good = _nearest_good(parts, version)
    if good.number == version.number:
        parts.follower.swap(Published(head.version, head.epoch, parts.overlays.of(version)))
        return Opened(head.version, head.epoch)
    reason = f"the checkpoint of version {version.number} is damaged"
    result = roll_back(parts, to=good.number, author=SERVICE, reason=reason, requeue=True)
    degraded = f"{reason}; version {good.number} is served as version {result.version} until its edits are applied again"
    parts.follower.degraded = degraded
    return Opened(result.version, result.epoch, degraded)


def _nearest_good(parts: Parts, version: Version) -> Version:
    """The version itself or the first of its ancestors whose bytes are good. Version 0 has none that could be damaged."""
    while True:
        try:
            parts.overlays.of(version)
            return version
        except Corrupt:
            _mark(parts, version)
        except Gone:
            pass  # an ancestor whose bytes were given up on purpose
        assert version.parent is not None
        with parts.store.read() as connection:
            version = versions.get(connection, version.parent)


def _mark(parts: Parts, version: Version) -> None:
    if version.digest is None:
        return
    parts.overlays.forget(version.digest)
    with parts.store.write() as connection:
        heads.lock(connection)
        damaged = versions.mark_corrupt(connection, version.digest)
        happened = [Event(type="version.corrupt", author=SERVICE, version=number) for number in damaged]
        events.write(connection, happened, now=parts.clock())
