"""The edits that a version states, as the context tier chooses them. Rows decide: every publication states what waits then.

A rollback states what the version that it restores stated, as far as this still waits. What else the head stated it *withdraws*:
this is stated no more as long as it waits, unless a later rollback goes to a version that stated it.
"""

from collections.abc import Collection

from sqlalchemy.engine import Connection

from service.domain.context_tier import STATED_STATUSES, choose_stated
from service.domain.liveset import LiveSet
from service.domain.version import Version
from service.lifecycle.context import LifecycleContext
from service.lifecycle.settings import SERVICE
from service.store import events, stated_edits
from service.store.events import Event


def find_stated(
    connection: Connection, context: LifecycleContext, live_set: LiveSet, withdrawn: Collection[str]
) -> tuple[str, ...]:
    """The ids of the edits that a version with this live set states now, without those that are withdrawn."""
    tier = context.settings.tier
    waiting = stated_edits.read_waiting(connection, tier.statuses, without=withdrawn, characters=tier.characters, most=tier.most)
    return tuple(item.edit_id for item in choose_stated(waiting, live_set, tier.most))


def write_stated(
    connection: Connection,
    context: LifecycleContext,
    version: Version,
    live_set: LiveSet,
    *,
    job_id: str | None = None,
    restored: int | None = None,
) -> None:
    """Write the edits that a new version states, with an event for each that its parent does not state. The statuses of edits
    must have been written before. `restored` is the version to which somebody rolls back.
    """
    assert version.parent is not None
    before = stated_edits.read_ids(connection, version.parent)
    withdrawn = set(stated_edits.read_withdrawn(connection, version.parent))
    if restored is not None:
        withdrawn = withdrawn.union(before).difference(stated_edits.read_ids(connection, restored))
    withdrawn = stated_edits.keep_waiting(connection, withdrawn, STATED_STATUSES["on"])
    stated = find_stated(connection, context, live_set, withdrawn)
    stated_edits.insert(connection, version.number, stated, withdrawn=withdrawn)
    new = [edit_id for edit_id in stated if edit_id not in before]
    written = [
        Event(type="edit.stated", edit_id=edit_id, version=version.number, job_id=job_id, author=SERVICE) for edit_id in new
    ]
    events.write(connection, written, now=version.created_at)
