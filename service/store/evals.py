"""Rows of evaluations: what was asked about a version, and what came out. A result is written once and never changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import NotFound
from service.store import tables as t
from service.store.ids import new_id


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation. `request` names what is asked (`edits`: ids, or `records`), `result` is the report."""

    id: str
    version: int
    status: str  # queued, running, done, failed
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error: str | None
    author: str
    created_at: datetime
    finished_at: datetime | None


def insert(connection: Connection, *, version: int, request: Mapping[str, Any], author: str, now: datetime) -> Evaluation:
    """Queue an evaluation."""
    eval_id = new_id()
    row = {"id": eval_id, "version": version, "status": "queued", "request": dict(request), "author": author, "created_at": now}
    connection.execute(sa.insert(t.evals).values(**row))
    return get(connection, eval_id)


def get(connection: Connection, eval_id: str) -> Evaluation:
    """One evaluation. Raises NotFound."""
    row = connection.execute(sa.select(t.evals).where(t.evals.c.id == eval_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no evaluation with this id", field="id")
    return _evaluation(dict(row))


def oldest_due(connection: Connection) -> Evaluation | None:
    """The evaluation to work on next: one that a stopped process left running comes first, since it was asked for first."""
    select = sa.select(t.evals).where(t.evals.c.status.in_(("queued", "running")))
    row = connection.execute(select.order_by(t.evals.c.created_at, t.evals.c.id).limit(1)).mappings().one_or_none()
    return None if row is None else _evaluation(dict(row))


def waiting(connection: Connection) -> int:
    """How many evaluations have no outcome yet."""
    count = sa.select(sa.func.count()).where(t.evals.c.status.in_(("queued", "running")))
    return int(connection.execute(count).scalar_one())


def begin(connection: Connection, eval_id: str) -> None:
    """Mark an evaluation as being worked on."""
    connection.execute(sa.update(t.evals).where(t.evals.c.id == eval_id).values(status="running"))


def finish(
    connection: Connection, eval_id: str, *, result: Mapping[str, Any] | None = None, error: str | None = None, now: datetime
) -> None:
    """Write the outcome, unless there is one already."""
    values = {"status": "failed" if result is None else "done", "result": result, "error": error, "finished_at": now}
    due = t.evals.c.status.in_(("queued", "running"))
    connection.execute(sa.update(t.evals).where(t.evals.c.id == eval_id, due).values(**values))


def _evaluation(row: Mapping[str, Any]) -> Evaluation:
    return Evaluation(**{name: row[name] for name in Evaluation.__dataclass_fields__})
