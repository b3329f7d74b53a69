"""Idempotency keys, kept as long as what was made under them. They belong to an author, so two may use the same word, and to the
request that they came with first: a key never stands for two.

Whatever a keyed request changes, its answer is written in the same transaction. So a request whose answer was lost, by a broken
connection or by `kill -9`, may be sent again: either nothing of it happened, or the answer is there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import Gone, KeyReused
from service.store import tables as t

EDITS = "edits"  # the call of every key from before calls were written down
FORGOTTEN = "purged"  # in the place of a body's digest, by which the body could be guessed


@dataclass(eq=False)
class KeyedRequest:
    """A request that its author may repeat: to which call, under which key (None: not to be repeated), with what body.

    `is_replay` is set by `recall` where it was answered before.
    """

    author: str
    call: str
    key: str | None = None
    body_hash: str = ""
    is_replay: bool = False


def unkeyed_request(author: str) -> KeyedRequest:
    """A request that nobody repeats: it is never recalled and never remembered."""
    return KeyedRequest(author, "")


def recall(connection: Connection, asked: KeyedRequest) -> Mapping[str, Any] | None:
    """What a request was answered with, or None if its key is new. Raises KeyReused if the key came with another body or to
    another call, and Gone if all that it made was purged.
    """
    if asked.key is None:
        return None
    row = connection.execute(sa.select(t.idempotency_keys).where(*_is_key(asked.author, asked.key))).one_or_none()
    if row is None:
        return None
    if row.call != asked.call:
        raise KeyReused("this Idempotency-Key was used before for another call; use a new key", field="Idempotency-Key")
    if row.body_hash == FORGOTTEN:
        raise Gone("what was made under this Idempotency-Key was purged; use a new key", field="Idempotency-Key")
    if row.body_hash != asked.body_hash:
        raise KeyReused("this Idempotency-Key was used before with another body; use a new key", field="Idempotency-Key")
    asked.is_replay = True
    answer: Mapping[str, Any] = row.answer
    return answer


def remember(connection: Connection, asked: KeyedRequest, answer: Mapping[str, Any], *, now: datetime) -> None:
    """Keep what a request was answered with, if it has a key."""
    if asked.key is None:
        return
    row = {"author": asked.author, "key": asked.key, "call": asked.call, "body_hash": asked.body_hash}
    connection.execute(sa.insert(t.idempotency_keys).values(**row, answer=dict(answer), created_at=now))


def forget(connection: Connection, *, author: str, key: str, ids: Collection[str]) -> int:
    """Take ids out of what a key was answered with; how many rows that changed. In their place nothing is said.

    A body that spoke of nothing else is forgotten with them.
    """
    answer = connection.execute(sa.select(t.idempotency_keys.c.answer).where(*_is_key(author, key))).scalar_one()
    kept = _without(answer, ids)
    values: dict[str, Any] = {"answer": kept}
    made = [edit_id for edit_id, _ in kept["edits"]] if "edits" in kept else [kept["eval"]] if "eval" in kept else []
    if made and all(one is None for one in made):
        values["body_hash"] = FORGOTTEN
    return connection.execute(sa.update(t.idempotency_keys).where(*_is_key(author, key)).values(**values)).rowcount


def _is_key(author: str, key: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return (t.idempotency_keys.c.author == author, t.idempotency_keys.c.key == key)


def _without(value: Any, ids: Collection[str]) -> Any:
    """The same JSON with nothing in the place of each of these ids."""
    match value:
        case dict():
            return {name: _without(inner, ids) for name, inner in value.items()}
        case list():
            return [_without(inner, ids) for inner in value]
        case str() if value in ids:
            return None
        case _:
            return value
