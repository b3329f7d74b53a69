"""Aliases: names that people move from version to version, such as `stable`. An alias moves no head, and its version is kept."""

from sqlalchemy.engine import Connection

from service.domain.alias_name import RESERVED, may_be_alias
from service.domain.errors import Refused
from service.lifecycle.context import LifecycleContext
from service.store import aliases, events, heads, versions
from service.store.aliases import AliasMove
from service.store.events import Event


def check_name(name: str) -> None:
    """Raise Refused for a name that is none, or that names a version already."""
    if not may_be_alias(name) or name in RESERVED:
        raise Refused(
            "an alias must have 1 to 64 small letters, digits, dots, dashes and underscores, a letter first; head, base,"
            " and v with a number name versions already",
            field="alias",
        )


def set_alias(context: LifecycleContext, name: str, version: int, *, author: str, reason: str | None = None) -> AliasMove:
    """Let an alias name a version from now on. To name the same version again changes nothing, unless for another reason.

    Raises Refused for a name, NotFound for a version that does not exist, Gone for one that was collected or is of another base.
    """
    check_name(name)
    with context.store.write() as connection:
        heads.lock(connection)
        named = versions.get(connection, version)
        named.check_kept()
        named.check_base(context.checkpoints.fingerprint)
        last = next(iter(aliases.read_history(connection, name, limit=1)), None)
        if last is not None and last.version == version and reason in (None, last.reason):
            return last
        moved = AliasMove(name, version, author, reason, context.clock())
        _write(connection, moved, "alias.set")
    return moved


def remove_alias(context: LifecycleContext, name: str, *, author: str, reason: str | None = None) -> AliasMove:
    """Remove an alias. Its moves stay. Raises NotFound if there is none."""
    with context.store.write() as connection:
        heads.lock(connection)
        aliases.get(connection, name)
        moved = AliasMove(name, None, author, reason, context.clock())
        _write(connection, moved, "alias.removed")
    return moved


def _write(connection: Connection, moved: AliasMove, event_type: str) -> None:
    aliases.move(connection, moved)
    event = Event(type=event_type, author=moved.author, version=moved.version, data={"alias": moved.name})
    events.write(connection, [event], now=moved.at)
