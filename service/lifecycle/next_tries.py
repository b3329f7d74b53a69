"""When deferred edits are tried next: the rule is `domain/next_try.py`; this module reads its input."""

from collections.abc import Collection, Mapping

from sqlalchemy.engine import Connection

from service.domain.next_try import NextTry, find_next_try
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.context import LifecycleContext
from service.store import jobs


def read_next_tries(connection: Connection, context: LifecycleContext, edit_ids: Collection[str]) -> Mapping[str, NextTry]:
    """The next try of each of these deferred edits, by id. What the cadence decides on is read once for all."""
    if not edit_ids:
        return {}
    inputs, now = read_cadence_inputs(connection, context), context.clock()
    is_queued = jobs.find_active(connection, "retrain", "queued", brief=True) is not None
    running = None if is_queued else jobs.find_active(connection, "retrain", "running")
    tried_now = set(edit_ids) if running is None else set(running.edit_ids)
    rules = context.settings.cadence
    return {
        edit_id: find_next_try(inputs, rules, now=now, is_left_out=edit_id not in tried_now) for edit_id in sorted(set(edit_ids))
    }
