"""Idempotency keys, kept as long as the edits they made. They belong to an author: two authors may use the same word."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import Gone, KeyReused
from service.store import tables as t

FORGOTTEN = "purged"  # in the place of a body's digest, by which the body could be guessed


def recall(connection: Connection, *, author: str, key: str, body_hash: str) -> Mapping[str, Any] | None:
    """What the key was answered with, or None if it is new. Raises KeyReused if it came with another body, and Gone if all that
    it made was purged.
    """
    select = sa.select(t.idempotency_keys).where(t.idempotency_keys.c.author == author, t.idempotency_keys.c.key == key)
    row = connection.execute(select).one_or_none()
    if row is None:
        return None
    if row.body_hash == FORGOTTEN:
        raise Gone("what was made under this Idempotency-Key was purged; use a new key", field="Idempotency-Key")
    if row.body_hash != body_hash:
        raise KeyReused("this Idempotency-Key was used before with another body; use a new key", field="Idempotency-Key")
    answer: Mapping[str, Any] = row.answer
    return answer


def remember(connection: Connection, *, author: str, key: str, body_hash: str, answer: Mapping[str, Any], now: datetime) -> None:
    """Keep what a key was answered with."""
    row = {"author": author, "key": key, "body_hash": body_hash, "answer": dict(answer), "created_at": now}
    connection.execute(sa.insert(t.idempotency_keys).values(**row))


def forget(connection: Connection, *, author: str, key: str, edit_ids: Collection[str]) -> int:
    """Take edits out of what a key was answered with; how many rows that changed. In their place nothing is said."""
    one = (t.idempotency_keys.c.author == author, t.idempotency_keys.c.key == key)
    answer = connection.execute(sa.select(t.idempotency_keys.c.answer).where(*one)).scalar_one()
    kept = [[None if edit_id in edit_ids else edit_id, identical] for edit_id, identical in answer["edits"]]
    values: dict[str, Any] = {"answer": {**answer, "edits": kept}}
    if all(edit_id is None for edit_id, _ in kept):
        values["body_hash"] = FORGOTTEN
    return connection.execute(sa.update(t.idempotency_keys).where(*one).values(**values)).rowcount
