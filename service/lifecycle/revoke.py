"""Retracting every edit that one author posted since a moment, for instance since a key of theirs was stolen.

Edits that are not live are retracted at once. Live edits are removed by the worker's refit. Superseded and failed edits are
barred: no rollback and no restored edit makes them live again. The work is done in bounded transactions, so that other writers
are served between them. A call that was cut off is finished by calling again.
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
from service.lifecycle.retract import IMMEDIATE, NOT_RETRACTABLE
from service.store import edits, events, heads, idempotency, jobs
from service.store.clock import read_now
from service.store.database import Store
from service.store.edits import AuthoredEdit, StatusChange
from service.store.events import Event
from service.store.idempotency import KeyedRequest, unkeyed_request

log = structlog.get_logger("errata.revoke")
EDITS_A_TRANSACTION = 500  # other writers wait for less than half a second


@dataclass(frozen=True)
class RevocationResult:
    """`retracted`: the edits whose retraction this call requested. `barred`: those among them that were superseded or had
    failed, and can only be kept from becoming live again. `already`: the number of edits that had been retracted before.
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
    """Retract every edit that `author` posted from `since` on. With `restore_previous` the edits that they superseded become
    live again.

    `by` is the author of the request. A `keyed` request that was answered before gets the same answer. One that was cut off is
    finished, and the edits that it had retracted count as `already`. Raises Refused for a moment without a time zone or a blank
    author.
    """
    if since.tzinfo is None:
        raise Refused("since must name a time zone, for instance end in Z", field="since")
    if not author.strip():
        raise Refused("author must not be blank", field="author")
    keyed_request = keyed or unkeyed_request(by)
    retracted: list[str] = []
    barred: list[str] = []
    already = 0
    after_seq = 0
    while True:
        with store.write() as connection:
            heads.lock(connection)
            now = now or read_now(connection)
            if (answer := idempotency.recall(connection, keyed_request)) is not None:
                return _result_of(answer)
            rows = edits.read_by_author(
                connection, author, since=since, until=now, after_seq=after_seq, limit=EDITS_A_TRANSACTION
            )
            new = [edit for edit in rows if not edit.is_retraction_requested]
            already += len(rows) - len(new)
            _retract_all(connection, new, restore_previous=restore_previous, by=by, now=now)
            if len(rows) < EDITS_A_TRANSACTION:
                total = len(retracted) + len(new)
                data = {"author": author, "since": since.isoformat(), "reason": reason, "retracted": total}
                events.write(connection, [Event(type="author.revoked", author=by, data=data)], now=now)
            retracted += [edit.edit_id for edit in new]
            barred += [edit.edit_id for edit in new if edit.status in NOT_RETRACTABLE]
            result = RevocationResult(tuple(retracted), already, tuple(barred))
            if len(rows) < EDITS_A_TRANSACTION:
                idempotency.remember(connection, keyed_request, asdict(result), now=now)
            crash_point("revoke.before_commit")
        crash_point("revoke.after_commit")
        if ring is not None and new:
            ring(new[-1].edit_id)
        if len(rows) < EDITS_A_TRANSACTION:
            log.info("revoked", retracted=len(retracted), already=already, author=by)
            return result
        after_seq = rows[-1].seq


def _result_of(answer: Mapping[str, Any]) -> RevocationResult:
    """The result of a revocation from its stored answer, without edits that were purged since."""
    remaining = {name: tuple(edit_id for edit_id in answer[name] if edit_id is not None) for name in ("retracted", "barred")}
    return RevocationResult(**remaining, already=answer["already"])


def _retract_all(connection: Connection, new: list[AuthoredEdit], *, restore_previous: bool, by: str, now: datetime) -> None:
    """The changes that `retract` makes to one edit, for many."""
    ids = [edit.edit_id for edit in new]
    edits.request_retraction(connection, ids, restore_previous=restore_previous, author=by, now=now)
    immediate_ids = {edit.edit_id for edit in new if edit.status in IMMEDIATE}
    edits.change_statuses(
        connection,
        [StatusChange(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in ids if edit_id in immediate_ids],
        now=now,
    )
    live_ids = [edit.edit_id for edit in new if edit.status.is_live]
    if live_ids and jobs.find_active(connection, "refit", "queued", brief=True) is None:
        jobs.insert(connection, "refit", edit_ids=live_ids, reason="retraction", author=by, now=now)
    event_types = ("edit.retracted" if edit_id in immediate_ids else "edit.retraction_asked" for edit_id in ids)
    events.write(
        connection,
        [Event(type=kind, edit_id=edit_id, author=by) for edit_id, kind in zip(ids, event_types, strict=True)],
        now=now,
    )
