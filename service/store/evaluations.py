"""Rows of evaluations: the questions about a version, and the result. A result is written once and never changed.

The request may be a megabyte of records, and the outcomes of its questions as much again. Neither is read unless it is needed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import NotFound
from service.store import tables as t
from service.store.ids import new_id

UNFINISHED = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation. `about` is the request in short; `read_request` returns the whole. `result` is the report."""

    id: str
    version: int
    status: str  # queued, running, done, failed, cancelled
    about: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error: str | None
    author: str
    created_at: datetime
    finished_at: datetime | None
    progress: float = 0.0
    started_at: datetime | None = None
    cancel_asked_at: datetime | None = None


def insert(
    connection: Connection,
    *,
    version: int,
    request: Mapping[str, Any],
    about: Mapping[str, Any],
    author: str,
    now: datetime,
) -> Evaluation:
    """Queue an evaluation. `request` has its questions (`edits`: ids, or `records`)."""
    eval_id = new_id()
    asked = {"version": version, "request": dict(request), "about": dict(about), "author": author, "created_at": now}
    connection.execute(sa.insert(t.evals).values(id=eval_id, status="queued", progress=0.0, **asked))
    return get(connection, eval_id)


def get(connection: Connection, eval_id: str) -> Evaluation:
    """One evaluation. Raises NotFound."""
    row = connection.execute(_select().where(t.evals.c.id == eval_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no evaluation with this id", field="id")
    return Evaluation(**row)


def read_request(connection: Connection, eval_id: str) -> Mapping[str, Any]:
    """The whole request of an evaluation."""
    request: Mapping[str, Any] = connection.execute(sa.select(t.evals.c.request).where(t.evals.c.id == eval_id)).scalar_one()
    return request


def read_outcomes(connection: Connection, eval_id: str) -> Sequence[Any] | None:
    """The outcome of each question of an evaluation that is done."""
    outcomes: Sequence[Any] | None = connection.execute(
        sa.select(t.evals.c.outcomes).where(t.evals.c.id == eval_id)
    ).scalar_one_or_none()
    return outcomes


def read_created_at(connection: Connection, eval_id: str) -> datetime:
    """The time at which an evaluation was requested. Raises NotFound."""
    at: datetime | None = connection.execute(sa.select(t.evals.c.created_at).where(t.evals.c.id == eval_id)).scalar_one_or_none()
    if at is None:
        raise NotFound("there is no evaluation with this id", field="id")
    return at


def find_latest(connection: Connection, version: int) -> str | None:
    """The id of a version's last evaluation that is done and had questions."""
    has_questions = t.evals.c.result["edits"].as_integer() > 0
    select = sa.select(t.evals.c.id).where(t.evals.c.version == version, t.evals.c.status == "done", has_questions)
    eval_id: str | None = connection.execute(
        select.order_by(t.evals.c.created_at.desc(), t.evals.c.id.desc()).limit(1)
    ).scalar_one_or_none()
    return eval_id


def find_next(connection: Connection) -> Evaluation | None:
    """The evaluation to run next, the oldest first. One that a stopped process left running is the oldest."""
    select = _select().where(t.evals.c.status.in_(UNFINISHED)).order_by(t.evals.c.created_at, t.evals.c.id).limit(1)
    row = connection.execute(select).mappings().one_or_none()
    return None if row is None else Evaluation(**row)


def count_unfinished(connection: Connection) -> int:
    """The number of evaluations without an outcome."""
    count = sa.select(sa.func.count()).where(t.evals.c.status.in_(UNFINISHED))
    return int(connection.execute(count).scalar_one())


def begin(connection: Connection, eval_id: str, *, now: datetime) -> None:
    """Mark an evaluation as running, from its beginning."""
    started = sa.func.coalesce(t.evals.c.started_at, sa.literal(now, t.UtcDateTime))
    _update(connection, eval_id, {"status": "running", "progress": 0.0, "started_at": started})


def write_progress(connection: Connection, eval_id: str, share: float) -> None:
    """Write the share of an evaluation's questions that were asked."""
    _update(connection, eval_id, {"progress": share})


def cancel(connection: Connection, eval_id: str, *, now: datetime) -> None:
    """Cancel an evaluation, unless it has an outcome."""
    _update(connection, eval_id, {"status": "cancelled", "cancel_asked_at": now, "finished_at": now})


def cancel_all_of(connection: Connection, versions: Collection[int], *, now: datetime) -> None:
    """Cancel all evaluations of these versions that have no outcome."""
    due = (t.evals.c.version.in_(list(versions)), t.evals.c.status.in_(UNFINISHED))
    values = {"status": "cancelled", "cancel_asked_at": now, "finished_at": now}
    connection.execute(sa.update(t.evals).where(*due).values(**values))


def finish(
    connection: Connection,
    eval_id: str,
    *,
    result: Mapping[str, Any] | None = None,
    outcomes: Sequence[Any] | None = None,
    error: str | None = None,
    now: datetime,
) -> None:
    """Write the outcome, unless the evaluation has one."""
    values: dict[str, Any] = {"status": "failed" if result is None else "done", "result": result, "error": error}
    values |= {"outcomes": outcomes, "finished_at": now, **({} if result is None else {"progress": 1.0})}
    _update(connection, eval_id, values)


def _select() -> sa.Select[Any]:
    return sa.select(*(t.evals.c[name] for name in Evaluation.__dataclass_fields__))


def _update(connection: Connection, eval_id: str, values: Mapping[str, Any]) -> None:
    """Change an evaluation, unless it has an outcome."""
    due = t.evals.c.status.in_(UNFINISHED)
    connection.execute(sa.update(t.evals).where(t.evals.c.id == eval_id, due).values(**values))
