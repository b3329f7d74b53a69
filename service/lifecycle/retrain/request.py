"""Requesting a retrain: by a person, or by the cadence when one is due."""

from collections.abc import Set
from datetime import datetime

from sqlalchemy.engine import Connection

from service.domain import cadence
from service.domain.cadence import Mode
from service.domain.errors import Conflict, Refused
from service.domain.version import Head
from service.editors.registry import find_method, names_of
from service.lifecycle.cadence_inputs import read_cadence_inputs
from service.lifecycle.context import LifecycleContext
from service.lifecycle.keyed_requests import answer_once
from service.lifecycle.retrain.snapshots import read_snapshot
from service.lifecycle.settings import SERVICE
from service.store import events, heads, jobs, versions
from service.store.database import Store
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request
from service.store.jobs import Job

NOTHING_NEW = "there is nothing new to retrain: the tensors have every live edit; a major one can still be asked for"


def request_retrain(
    store: Store,
    *,
    author: str,
    reason: str | None = None,
    mode: Mode | None = None,
    method: str | None = None,
    keyed: KeyedRequest | None = None,
    now: datetime | None = None,
) -> Job:
    """Queue a retrain; or return the queued one, or a running one that trains all there is. A queued retrain becomes major if a
    major one is requested.

    Without a mode or a method the worker chooses when the retrain begins. A queued retrain takes the requested method. A `keyed`
    request that was answered before returns the same job as it is now.

    Raises Conflict if there is nothing to train on and nothing to undo; for a person's request that is not major and names no
    method, also if there is nothing new for the tensors. Raises Refused if `method` is no consolidating method.
    """
    if method is not None and find_method(method).role != "consolidating":
        raise Refused(f"method must be one of {', '.join(names_of('consolidating'))}", field="method")

    def queue(connection: Connection, head: Head, now: datetime) -> Job:
        return _request(connection, author=author, reason=reason, mode=mode, method=method, now=now)

    return answer_once(store, keyed or unkeyed_request(author), "job", read=jobs.get, queue=queue, now=now)


def _request(
    connection: Connection, *, author: str, reason: str | None, mode: Mode | None, method: str | None, now: datetime
) -> Job:
    queued = jobs.find_active(connection, "retrain", "queued")
    if queued is not None:
        if mode == "major" and queued.mode != "major":
            jobs.append_to_log(connection, queued.id, f"{author} asked for it to be major", now)
            jobs.write(connection, queued.id, mode=mode, reason=reason)
        if method is not None and queued.method != method:
            jobs.append_to_log(connection, queued.id, f"{author} asked for it to be by {find_method(method).title}", now)
            jobs.write(connection, queued.id, method=method)
        return jobs.get(connection, queued.id)
    live_set = versions.read_live_set(connection, heads.read(connection).version)
    edit_ids = {item.edit_id for item in read_snapshot(connection, live_set)}
    running = jobs.find_active(connection, "retrain", "running")
    if running is not None and _covers_request(running, edit_ids, mode, method):
        return running
    if not edit_ids and not live_set.in_tensors:
        raise Conflict("there is nothing to retrain: no edit is live or deferred")
    if mode != "major" and method is None and author != SERVICE and not live_set.window and edit_ids <= live_set.ids:
        raise Conflict(NOTHING_NEW)
    job = jobs.insert(connection, "retrain", mode=mode, method=method, reason=reason, author=author, now=now)
    jobs.append_to_log(
        connection, job.id, f"asked for by {author}" + (f": {reason}" if author == SERVICE and reason else ""), now
    )
    events.write(connection, [Event(type="retrain.requested", job_id=job.id, author=author)], now=now)
    return jobs.get(connection, job.id)


def _covers_request(running: Job, edit_ids: Set[str], mode: Mode | None, method: str | None) -> bool:
    """Whether a running retrain does what is requested now."""
    is_enough = (mode != "major" or running.mode == "major") and method in (None, running.method)
    return is_enough and running.cancel_asked_at is None and edit_ids <= set(running.edit_ids)


def queue_if_due(context: LifecycleContext) -> bool:
    """Queue a retrain if the cadence asks for one; return whether it did."""
    with context.store.read() as connection:
        due = cadence.find_due_retrain(read_cadence_inputs(connection, context), context.settings.cadence)
    if due is not None:
        request_retrain(context.store, author=SERVICE, reason=due.reason, mode=due.mode, now=context.clock())
    return due is not None
