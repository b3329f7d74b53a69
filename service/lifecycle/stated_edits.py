"""The edits that a version states, as the context tier chooses them. Rows decide: every publication states what waits then.

A version states the edits that wait, as far as the version before it states them or they were accepted after its `stated_after`.
A rollback states what the version that it restores stated, as far as this still waits; what else was accepted until then, it
withdraws.
"""

from collections.abc import Collection

from sqlalchemy.engine import Connection

from service.domain.context_tier import choose_stated
from service.domain.liveset import LiveSet
from service.domain.version import Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.settings import SERVICE
from service.store import events, stated_edits
from service.store.events import Event


def find_stated(
    connection: Connection, context: LifecycleContext, live_set: LiveSet, *, after: int, before: Collection[str]
) -> tuple[str, ...]:
    """The ids of the edits that a version with this live set states now. `before` are those that it inherits."""
    tier = context.settings.tier
    waiting = stated_edits.read_waiting(
        connection, tier.statuses, after=after, among=before, characters=tier.characters, most=tier.most
    )
    return tuple(item.edit_id for item in choose_stated(waiting, live_set, tier.most))


def write_stated(
    connection: Connection, context: LifecycleContext, version: Version, live_set: LiveSet, *, source: int, job_id: str | None
) -> None:
    """Write the edits that a new version states, with an event for each that the version `source` does not state. The statuses
    of edits must have been written before.
    """
    before = stated_edits.read_ids(connection, source)
    stated = find_stated(connection, context, live_set, after=version.stated_after, before=before)
    stated_edits.insert(connection, version.number, stated)
    new = [edit_id for edit_id in stated if edit_id not in before]
    written = [
        Event(type="edit.stated", edit_id=edit_id, version=version.number, job_id=job_id, author=SERVICE) for edit_id in new
    ]
    events.write(connection, written, now=version.created_at)
