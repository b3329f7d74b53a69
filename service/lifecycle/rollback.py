"""Rolling back: publishing an older overlay under a new number, in the request itself and in one transaction.

The worker's fence stays as it is: a running fit finds that the head moved, and is repeated on the new one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from service.domain import liveset
from service.domain.edit import EditStatus
from service.domain.errors import Conflict, Gone, NotFound, Stale
from service.domain.liveset import LiveSet
from service.domain.version import ROLLBACK, Version, VersionStatus
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.fenced import OTHER_BASE
from service.lifecycle.head_follower import PublishedHead
from service.lifecycle.stated_edits import write_stated
from service.lifecycle.statuses import changes_of_live_sets, defer, write_statuses
from service.lifecycle.submit import NEEDS_RETRAIN, first_status
from service.store import edits, events, heads, idempotency, jobs, stated_edits, versions
from service.store.edits import StatusChange
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request

log = structlog.get_logger("errata.rollback")


@dataclass(frozen=True)
class RollbackResult:
    """The new head. `restored` is the version whose overlay it has; `rolled_back` are the edits that are not live any more."""

    version: int
    restored: int
    epoch: int
    rolled_back: tuple[str, ...]


def roll_back(
    context: LifecycleContext,
    *,
    to: int,
    author: str,
    reason: str | None = None,
    requeue: bool = False,
    if_match: int | None = None,
    fence: int | None = None,
    keyed: KeyedRequest | None = None,
) -> RollbackResult:
    """Answer with an older version again. With `requeue` the edits that leave the live set are queued again, to be applied on
    top of it.

    `if_match` is the epoch that the caller saw; `fence` is for a worker that rolls back by itself. A `keyed` request that was
    answered before gets the same answer and changes nothing. Raises NotFound; Gone for a version that was collected or is of
    another base model; Corrupt for a damaged one, Unreadable for one that cannot be read now; Conflict for the head itself;
    Stale if the epoch is another, FenceLost if the fence is.
    """
    keyed_request = keyed or unkeyed_request(author)
    with context.store.read() as connection:
        answer = idempotency.recall(connection, keyed_request)
    if answer is None:
        result = _roll_back(context, keyed_request, to=to, reason=reason, requeue=requeue, if_match=if_match, fence=fence)
    else:
        result = _result_of(answer)
    if keyed_request.is_replay:  # another process may have published it, or another thread that has not swapped yet
        context.follower.catch_up()
    return result


def _result_of(answer: Mapping[str, Any]) -> RollbackResult:
    """The result of a rollback from its stored answer, without edits that were purged since."""
    fallen = tuple(edit_id for edit_id in answer["rolled_back"] if edit_id is not None)
    return RollbackResult(answer["version"], answer["restored"], answer["epoch"], fallen)


def _roll_back(
    context: LifecycleContext,
    keyed_request: KeyedRequest,
    *,
    to: int,
    reason: str | None,
    requeue: bool,
    if_match: int | None,
    fence: int | None,
) -> RollbackResult:
    author = keyed_request.author
    try:
        with context.store.read() as connection:
            target = versions.get(connection, to)
    except NotFound as unknown:
        raise NotFound(unknown.message, field="to") from None
    overlay = context.checkpoints.get_overlay(target)
    now = context.clock()
    with context.store.write() as connection:
        head = heads.lock(connection)
        if (answer := idempotency.recall(connection, keyed_request)) is not None:
            return _result_of(answer)
        heads.check_fence(connection, fence)
        if head.base_fingerprint != context.checkpoints.fingerprint:
            raise Conflict(OTHER_BASE)
        if if_match is not None and head.epoch != if_match:
            raise Stale("the head has moved: its epoch is not the one in If-Match", field="If-Match")
        if head.version == to:
            raise Conflict("this version is the head already", field="to")
        if versions.get(connection, to).status is VersionStatus.COLLECTED:
            raise Gone("this version was collected; only its record is kept", field="to")
        before = versions.read_live_set(connection, head.version)
        restored_set = versions.read_live_set(connection, to)
        after = liveset.roll_back(restored_set, edits.find_retracted(connection, restored_set.ids))
        moved = heads.move(connection, head, fence=fence, reason=reason, author=author, now=now)
        version = Version(
            number=moved.version,
            kind=ROLLBACK,
            status=VersionStatus.PUBLISHED,
            parent=head.version,
            restores=to,
            digest=target.digest,
            created_at=now,
            author=author,
            reason=reason,
            scores=target.scores,
            minors=target.minors,
            major_at=target.major_at,
            neutral_sentences=target.neutral_sentences,
        )
        versions.insert(connection, version, after, fence=fence, job_id=None)
        fallen = _write_changes(connection, context, before, after, author=author, version=moved.version, requeue=requeue)
        # A worker that replaces a damaged head withdraws nothing of what is stated.
        write_stated(connection, context, version, after, restored=to if fence is None else None)
        stated = stated_edits.read(connection, moved.version)
        if after.needs_refit and jobs.find_active(connection, "refit", "queued", brief=True) is None:
            jobs.insert(connection, "refit", reason="the restored version holds retracted edits", author=author, now=now)
        data = {"restored": to, "reason": reason, "rolled_back": len(fallen)}
        events.write(connection, [Event(type="version.rolled_back", author=author, version=moved.version, data=data)], now=now)
        result = RollbackResult(moved.version, to, moved.epoch, fallen)
        idempotency.remember(connection, keyed_request, asdict(result), now=now)
        crash_point("rollback.before_commit")
    crash_point("rollback.after_commit")
    context.follower.swap(PublishedHead(moved.version, moved.epoch, overlay, moved.epoch, stated))
    context.announcer.announce((*after.ids, *fallen))
    log.info("rolled back", version=moved.version, restored=to, edits=len(after.live), rolled_back=len(fallen), author=author)
    return result


def _write_changes(
    connection: Connection,
    context: LifecycleContext,
    before: LiveSet,
    after: LiveSet,
    *,
    author: str,
    version: int,
    requeue: bool,
) -> tuple[str, ...]:
    """Write the statuses that follow from two live sets; return the ids of the edits that left, without the retracted ones."""
    leaving_ids = sorted(before.ids - after.ids)
    retracted_ids = edits.find_retracted(connection, leaving_ids)
    changes = [StatusChange(edit_id=edit_id, status=EditStatus.ROLLED_BACK) for edit_id in leaving_ids]
    changes += changes_of_live_sets(before, after, superseded={}, reports={})
    write_statuses(connection, context, changes, author=author, version=version)
    fallen = tuple(item.edit_id for item in edits.read_items(connection, set(leaving_ids) - retracted_ids))
    if requeue:
        requeued = [
            defer(edit.id, NEEDS_RETRAIN)
            if first_status(edit.method, context.settings.method) is EditStatus.DEFERRED
            else StatusChange(edit_id=edit.id, status=EditStatus.QUEUED)
            for edit in edits.read_many(connection, fallen)
        ]
        write_statuses(connection, context, requeued, author=author)
    return fallen
