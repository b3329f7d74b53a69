"""Idempotency keys, kept as long as the edits they made. They belong to an author: two authors may use the same word."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import KeyReused
from service.store import tables as t


def recall(connection: Connection, *, author: str, key: str, body_hash: str) -> Mapping[str, Any] | None:
    """What the key was answered with, or None if it is new. Raises KeyReused if it came with another body."""
    select = sa.select(t.idempotency_keys).where(t.idempotency_keys.c.author == author, t.idempotency_keys.c.key == key)
    row = connection.execute(select).one_or_none()
    if row is None:
        return None
    if row.body_hash != body_hash:
        raise KeyReused("this Idempotency-Key was used before with another body; use a new key", field="Idempotency-Key")
    answer: Mapping[str, Any] = row.answer
    return answer


def remember(connection: Connection, *, author: str, key: str, body_hash: str, answer: Mapping[str, Any], now: datetime) -> None:
    """Keep what a key was answered with."""
    row = {"author": author, "key": key, "body_hash": body_hash, "answer": dict(answer), "created_at": now}
    connection.execute(sa.insert(t.idempotency_keys).values(**row))
