"""Rows of jobs: what a worker claimed and must repeat exactly if it dies, and how far it got."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.errors import NotFound
from service.store import tables as t
from service.store.ids import new_id


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work. `edit_ids` are ordered; `parent` and `seed` make a repetition give the same bytes."""

    id: str
    kind: str  # apply, refit, retrain
    status: str  # queued, running, done, failed, cancelled
    edit_ids: tuple[str, ...]
    parent: int | None
    seed: int | None
    claims: int
    failures: int
    progress: float  # share of the work done
    stage: str | None
    reason: str | None
    error: str | None
    version: int | None  # what it published
    fence: int | None  # of the worker that took it up last
    author: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_active(self) -> bool:
        return self.status in ("queued", "running")


def insert(
    connection: Connection, kind: str, *, edit_ids: Sequence[str] = (), reason: str | None, author: str, now: datetime
) -> Job:
    """Queue a job."""
    job_id = new_id()
    row = {
        "id": job_id,
        "kind": kind,
        "status": "queued",
        "edit_ids": list(edit_ids),
        "claims": 0,
        "failures": 0,
        "progress": 0.0,
    }
    connection.execute(sa.insert(t.jobs).values(**row, reason=reason, author=author, created_at=now))
    return get(connection, job_id)


def get(connection: Connection, job_id: str) -> Job:
    """One job. Raises NotFound."""
    row = connection.execute(sa.select(t.jobs).where(t.jobs.c.id == job_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no job with this id", field="id")
    return _job(row)


def page(connection: Connection, *, limit: int, kind: str | None = None) -> list[Job]:
    """Jobs, newest first."""
    select = sa.select(t.jobs).order_by(t.jobs.c.created_at.desc(), t.jobs.c.id.desc()).limit(limit)
    if kind is not None:
        select = select.where(t.jobs.c.kind == kind)
    return [_job(row) for row in connection.execute(select).mappings()]


def active(connection: Connection, kind: str, status: str | None = None) -> Job | None:
    """The job of a kind that runs, else the one that waits; or only the one with `status`."""
    statuses = ("running", "queued") if status is None else (status,)
    for one in statuses:
        select = sa.select(t.jobs).where(t.jobs.c.kind == kind, t.jobs.c.status == one)
        row = connection.execute(select).mappings().one_or_none()
        if row is not None:
            return _job(row)
    return None


def update(connection: Connection, job_id: str, **values: Any) -> Job:
    """Change a job's columns."""
    if "edit_ids" in values:
        values["edit_ids"] = list(values["edit_ids"])
    connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(**values))
    return get(connection, job_id)


def finish(connection: Connection, job_id: str, *, version: int | None = None, error: str | None = None, now: datetime) -> None:
    """End a job: failed if there is an error, else done."""
    status, progress = ("failed", {}) if error is not None else ("done", {"progress": 1.0})
    update(connection, job_id, status=status, version=version, error=error, finished_at=now, stage=None, **progress)


def _job(row: RowMapping) -> Job:
    names = Job.__dataclass_fields__.keys() - {"edit_ids"}
    return Job(edit_ids=tuple(row["edit_ids"]), **{name: row[name] for name in names})
