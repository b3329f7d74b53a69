"""Taking back all that one author asked for since a moment, for instance since a key of theirs was stolen.

What is not live goes at once, what is live is taken out by the worker's refit, and what is superseded or has failed is kept from
ever coming back by a rollback or a restored edit. Done in bounded transactions: others can write between them, and a call that
was cut off is finished by calling again.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from service.domain.edit import EditStatus
from service.domain.errors import Refused
from service.lifecycle.crash_points import crash_point
from service.lifecycle.retract import AT_ONCE, NEVER
from service.store import edits, events, heads, idempotency, jobs
from service.store.clock import read_now
from service.store.database import Store
from service.store.edits import AuthoredEdit, StatusChange
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request

log = structlog.get_logger("errata.revoke")
CHUNK = 500  # edits a transaction: other writers wait for less than half a second


@dataclass(frozen=True)
class RevocationResult:
    """`retracted`: edits taken back, or asked to be, by this call; `barred`: of these, the ones that were not live and only may
    not come back. `already`: how many had been taken back before.
    """

    retracted: tuple[str, ...]
    already: int
    barred: tuple[str, ...] = ()


def revoke(
    store: Store,
    *,
    author: str,
    since: datetime,
    by: str,
    reason: str | None,
    restore_previous: bool = False,
    keyed: KeyedRequest | None = None,
    ring: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> RevocationResult:
    """Take back every edit that `author` posted from `since` on; with `restore_previous` what these superseded is live again.

    `by` is who asks for it. A `keyed` request that was answered before is answered so again; one that was cut off is finished,
    and what it had taken back by then counts as `already`. Raises Refused for a moment without a time zone or an author without
    a name.
    """
    if since.tzinfo is None:
        raise Refused("since must name a time zone, for instance end in Z", field="since")
    if not author.strip():
        raise Refused("author must not be blank", field="author")
    asked = keyed or unkeyed_request(by)
    taken: list[str] = []
    barred: list[str] = []
    already = 0
    after = 0
    while True:
        with store.write() as connection:
            heads.lock(connection)
            now = now or read_now(connection)
            if (answer := idempotency.recall(connection, asked)) is not None:
                return _answered(answer)
            found = edits.read_by_author(connection, author, since=since, until=now, after_seq=after, limit=CHUNK)
            going = [one for one in found if not one.is_retraction_requested]
            already += len(found) - len(going)
            _take_back(connection, going, restore_previous=restore_previous, by=by, now=now)
            if len(found) < CHUNK:
                total = len(taken) + len(going)
                data = {"author": author, "since": since.isoformat(), "reason": reason, "retracted": total}
                events.write(connection, [Event(type="author.revoked", author=by, data=data)], now=now)
            taken += [one.edit_id for one in going]
            barred += [one.edit_id for one in going if one.status in NEVER]
            done = RevocationResult(tuple(taken), already, tuple(barred))
            if len(found) < CHUNK:
                idempotency.remember(connection, asked, asdict(done), now=now)
            crash_point("revoke.before_commit")
        crash_point("revoke.after_commit")
        if ring is not None and going:
            ring(going[-1].edit_id)
        if len(found) < CHUNK:
            log.info("revoked", retracted=len(taken), already=already, author=by)
            return done
        after = found[-1].seq


def _answered(answer: Mapping[str, Any]) -> RevocationResult:
    """What a revocation was answered with, less the edits that were purged since."""
    left = {name: tuple(one for one in answer[name] if one is not None) for name in ("retracted", "barred")}
    return RevocationResult(**left, already=answer["already"])


def _take_back(connection: Connection, going: list[AuthoredEdit], *, restore_previous: bool, by: str, now: datetime) -> None:
    """What `retract` does to one edit, to many."""
    ids = [one.edit_id for one in going]
    edits.request_retraction(connection, ids, restore_previous=restore_previous, author=by, now=now)
    at_once = {one.edit_id for one in going if one.status in AT_ONCE}
    edits.change_statuses(
        connection, [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in ids if edit_id in at_once], now=now
    )
    live = [one.edit_id for one in going if one.status.is_live]
    if live and jobs.find_active(connection, "refit", "queued", brief=True) is None:
        jobs.insert(connection, "refit", edit_ids=live, reason="retraction", author=by, now=now)
    happened = ("edit.retracted" if edit_id in at_once else "edit.retraction_asked" for edit_id in ids)
    events.write(
        connection, [Event(type=kind, edit_id=edit_id, author=by) for edit_id, kind in zip(ids, happened, strict=True)], now=now
    )
