"""Idempotency keys, kept as long as the results of their requests.

A key belongs to one author, so two authors may use the same key, and to its first request, so it never stands for two requests.
The answer to a keyed request is written in the same transaction as its changes. A client that lost the answer, by a broken
connection or by `kill -9`, may repeat the request: either nothing of it happened, or the answer is stored.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import Gone, KeyReused
from service.store import tables as t

EDITS = "edits"  # the call of every key from before calls were stored
FORGOTTEN = "purged"  # replaces the digest of a body, from which the body could be guessed


@dataclass(eq=False)
class KeyedRequest:
    """A request that its author may repeat, by its call, key (None: not repeatable) and body.

    `recall` sets `is_replay` if the request was answered before.
    """

    author: str
    call: str
    key: str | None = None
    body_hash: str = ""
    is_replay: bool = False


def unkeyed_request(author: str) -> KeyedRequest:
    """A request without a key, which is neither recalled nor remembered."""
    return KeyedRequest(author, "")


def recall(connection: Connection, request: KeyedRequest) -> Mapping[str, Any] | None:
    """The stored answer to a request, or None if its key is new. Raises KeyReused if the key was used with another body or for
    another call, and Gone if all results of the request were purged.
    """
    if request.key is None:
        return None
    row = connection.execute(sa.select(t.idempotency_keys).where(*_is_key(request.author, request.key))).one_or_none()
    if row is None:
        return None
    if row.call != request.call:
        raise KeyReused("this Idempotency-Key was used before for another call; use a new key", field="Idempotency-Key")
    if row.body_hash == FORGOTTEN:
        raise Gone("what was made under this Idempotency-Key was purged; use a new key", field="Idempotency-Key")
    if row.body_hash != request.body_hash:
        raise KeyReused("this Idempotency-Key was used before with another body; use a new key", field="Idempotency-Key")
    request.is_replay = True
    answer: Mapping[str, Any] = row.answer
    return answer


def remember(connection: Connection, request: KeyedRequest, answer: Mapping[str, Any], *, now: datetime) -> None:
    """Store the answer to a request, if the request has a key."""
    if request.key is None:
        return
    row = {"author": request.author, "key": request.key, "call": request.call, "body_hash": request.body_hash}
    connection.execute(sa.insert(t.idempotency_keys).values(**row, answer=dict(answer), created_at=now))


def forget(connection: Connection, *, author: str, key: str, ids: Collection[str]) -> int:
    """Replace ids in the answer of a key by null. Returns the number of changed rows.

    If the answer has no other ids, the digest of the body is replaced too.
    """
    answer = connection.execute(sa.select(t.idempotency_keys.c.answer).where(*_is_key(author, key))).scalar_one()
    kept = _without(answer, ids)
    values: dict[str, Any] = {"answer": kept}
    result_ids = [edit_id for edit_id, _ in kept["edits"]] if "edits" in kept else [kept["eval"]] if "eval" in kept else []
    if result_ids and all(result_id is None for result_id in result_ids):
        values["body_hash"] = FORGOTTEN
    return connection.execute(sa.update(t.idempotency_keys).where(*_is_key(author, key)).values(**values)).rowcount


def _is_key(author: str, key: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return (t.idempotency_keys.c.author == author, t.idempotency_keys.c.key == key)


def _without(value: Any, ids: Collection[str]) -> Any:
    """The same JSON with null in the place of each of these ids."""
    match value:
        case dict():
            return {name: _without(inner, ids) for name, inner in value.items()}
        case list():
            return [_without(inner, ids) for inner in value]
        case str() if value in ids:
            return None
        case _:
            return value
