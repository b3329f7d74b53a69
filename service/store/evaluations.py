"""Rows of evaluations: what was asked about a version, and what came out. A result is written once and never changed.

What is asked may be a megabyte of records, and what each question came to as much again: neither is read unless it is needed.
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
    """One evaluation. `about` says in short what is asked; `request_of` has all of it. `result` is the report."""

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
    """Queue an evaluation. `request` names what is asked (`edits`: ids, or `records`)."""
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
    """All that an evaluation asks."""
    found: Mapping[str, Any] = connection.execute(sa.select(t.evals.c.request).where(t.evals.c.id == eval_id)).scalar_one()
    return found


def read_outcomes(connection: Connection, eval_id: str) -> Sequence[Any] | None:
    """What each question of an evaluation came to, once it is done."""
    found: Sequence[Any] | None = connection.execute(
        sa.select(t.evals.c.outcomes).where(t.evals.c.id == eval_id)
    ).scalar_one_or_none()
    return found


def read_created_at(connection: Connection, eval_id: str) -> datetime:
    """When an evaluation was asked for. Raises NotFound."""
    at: datetime | None = connection.execute(sa.select(t.evals.c.created_at).where(t.evals.c.id == eval_id)).scalar_one_or_none()
    if at is None:
        raise NotFound("there is no evaluation with this id", field="id")
    return at


def find_latest(connection: Connection, version: int) -> str | None:
    """The id of a version's last evaluation that is done and asked questions."""
    asked = t.evals.c.result["edits"].as_integer() > 0
    select = sa.select(t.evals.c.id).where(t.evals.c.version == version, t.evals.c.status == "done", asked)
    found: str | None = connection.execute(
        select.order_by(t.evals.c.created_at.desc(), t.evals.c.id.desc()).limit(1)
    ).scalar_one_or_none()
    return found


def find_next(connection: Connection) -> Evaluation | None:
    """The evaluation to work on next: one that a stopped process left running comes first, since it was asked for first."""
    select = _select().where(t.evals.c.status.in_(UNFINISHED)).order_by(t.evals.c.created_at, t.evals.c.id).limit(1)
    row = connection.execute(select).mappings().one_or_none()
    return None if row is None else Evaluation(**row)


def count_unfinished(connection: Connection) -> int:
    """How many evaluations have no outcome yet."""
    count = sa.select(sa.func.count()).where(t.evals.c.status.in_(UNFINISHED))
    return int(connection.execute(count).scalar_one())


def begin(connection: Connection, eval_id: str, *, now: datetime) -> None:
    """Mark an evaluation as being worked on, from its beginning."""
    started = sa.func.coalesce(t.evals.c.started_at, sa.literal(now, t.UtcDateTime))
    _update(connection, eval_id, {"status": "running", "progress": 0.0, "started_at": started})


def write_progress(connection: Connection, eval_id: str, share: float) -> None:
    """How much of an evaluation was asked."""
    _update(connection, eval_id, {"progress": share})


def cancel(connection: Connection, eval_id: str, *, now: datetime) -> None:
    """End an evaluation without an outcome, unless it has one."""
    _update(connection, eval_id, {"status": "cancelled", "cancel_asked_at": now, "finished_at": now})


def cancel_all_of(connection: Connection, versions: Collection[int], *, now: datetime) -> None:
    """End all evaluations of these versions that have no outcome yet."""
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
    """Write the outcome, unless there is one already."""
    values: dict[str, Any] = {"status": "failed" if result is None else "done", "result": result, "error": error}
    values |= {"outcomes": outcomes, "finished_at": now, **({} if result is None else {"progress": 1.0})}
    _update(connection, eval_id, values)


def _select() -> sa.Select[Any]:
    return sa.select(*(t.evals.c[name] for name in Evaluation.__dataclass_fields__))


def _update(connection: Connection, eval_id: str, values: Mapping[str, Any]) -> None:
    """Change an evaluation that has no outcome yet; one that has stays as it is."""
    due = t.evals.c.status.in_(UNFINISHED)
    connection.execute(sa.update(t.evals).where(t.evals.c.id == eval_id, due).values(**values))
