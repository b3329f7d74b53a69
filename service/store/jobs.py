"""Rows of jobs: the inputs that a worker needs to repeat a job exactly, and its progress."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.errors import NotFound
from service.store import tables as t
from service.store.ids import new_id

FIRST_LINES, LAST_LINES = 20, 80  # of a log
BRIEF_COLUMNS = tuple(column for column in t.jobs.c if column.name != "edit_ids")
ACTIVE = sa.text(t.ACTIVE)  # literally as in the partial index: otherwise SQLite does not use it and reads every job


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job. `edit_ids` are ordered. A repetition with the same `parent`, `seed` and `neutral_sentences` gives equal bytes."""

    id: str
    kind: str  # apply, refit, retrain, export
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
    version: int | None  # the version that it published
    fence: int | None  # of the worker that claimed it last
    author: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    mode: str | None = None  # of a retrain: minor, major
    method: str | None = None  # of a retrain: the name of a consolidating method
    request: Mapping[str, Any] | None = None  # of an export
    result: Mapping[str, Any] | None = None
    log: tuple[Mapping[str, Any], ...] = ()  # {at, message}, oldest first
    cancel_asked_at: datetime | None = None
    cancelled_by: str | None = None
    retry_at: datetime | None = None  # between two attempts: the time of the next one
    neutral_sentences: int | None = None  # that its fits may use, the first of all; None: all, or not chosen yet

    @property
    def is_active(self) -> bool:
        return self.status in ("queued", "running")


def insert(
    connection: Connection,
    kind: str,
    *,
    edit_ids: Sequence[str] = (),
    mode: str | None = None,
    method: str | None = None,
    request: Mapping[str, Any] | None = None,
    reason: str | None,
    author: str,
    now: datetime,
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
        "mode": mode,
        "method": method,
        "request": None if request is None else dict(request),
        "log": [],
    }
    connection.execute(sa.insert(t.jobs).values(**row, reason=reason, author=author, created_at=now))
    return get(connection, job_id)


def get(connection: Connection, job_id: str, *, brief: bool = False) -> Job:
    """One job; without its edit ids if `brief`. Raises NotFound."""
    select = sa.select(*(BRIEF_COLUMNS if brief else t.jobs.c)).where(t.jobs.c.id == job_id)
    row = connection.execute(select).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no job with this id", field="id")
    return _job(row)


def read_page(
    connection: Connection,
    *,
    limit: int,
    kind: str | Collection[str] = (),
    status: str | Collection[str] = (),
    before: str | None = None,
    brief: bool = False,
) -> list[Job]:
    """Jobs of one or some kinds and statuses, newest first, older than the job `before`. `brief`: without their edit ids, which
    may be megabytes for a retrain. Raises NotFound if there is no job `before`.
    """
    select = (
        sa.select(*(BRIEF_COLUMNS if brief else t.jobs.c)).order_by(t.jobs.c.created_at.desc(), t.jobs.c.id.desc()).limit(limit)
    )
    for column, values in ((t.jobs.c.kind, kind), (t.jobs.c.status, status)):
        if values:
            select = select.where(column.in_([values] if isinstance(values, str) else values))
    if before is not None:
        last = get(connection, before, brief=True)
        at = t.jobs.c.created_at
        select = select.where((at < last.created_at) | ((at == last.created_at) & (t.jobs.c.id < last.id)))
    return [_job(row) for row in connection.execute(select).mappings()]


def read_recent_statuses(connection: Connection, kind: str, *, limit: int) -> list[tuple[str, datetime | None]]:
    """The statuses of the last jobs of a kind, newest first, each with the time of its end."""
    columns = (t.jobs.c.status, t.jobs.c.finished_at)
    newest_first = (t.jobs.c.created_at.desc(), t.jobs.c.id.desc())
    select = sa.select(*columns).where(t.jobs.c.kind == kind).order_by(*newest_first).limit(limit)
    return [(row.status, row.finished_at) for row in connection.execute(select)]


def find_active(connection: Connection, kind: str, status: str | None = None, *, brief: bool = False) -> Job | None:
    """The job of a kind that runs, else the one that waits; or only the one with `status`. `brief`: without its edit ids."""
    statuses = ("running", "queued") if status is None else (status,)
    for active_status in statuses:
        select = sa.select(*(BRIEF_COLUMNS if brief else t.jobs.c)).where(
            t.jobs.c.kind == kind, t.jobs.c.status == active_status, ACTIVE
        )
        row = connection.execute(select).mappings().one_or_none()
        if row is not None:
            return _job(row)
    return None


def update(connection: Connection, job_id: str, **values: Any) -> Job:
    """Write columns of a job, and read the job."""
    write(connection, job_id, **values)
    return get(connection, job_id)


def write(connection: Connection, job_id: str, **values: Any) -> None:
    """Write columns of a job."""
    if "edit_ids" in values:
        values["edit_ids"] = list(values["edit_ids"])
    connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(**values))


def clear_retry(connection: Connection, kind: str) -> None:
    """Clear the retry time of the running job of a kind: its next attempt begins."""
    running = (t.jobs.c.kind == kind, t.jobs.c.status == "running", ACTIVE)
    connection.execute(sa.update(t.jobs).where(*running).values(retry_at=None, stage=None))


def uncount_claim(connection: Connection, fence: int) -> None:
    """Take back one claim of the jobs that the worker with this fence leaves running, because its process ends regularly."""
    claimed = (t.jobs.c.status == "running", t.jobs.c.fence == fence, t.jobs.c.claims > 0)
    connection.execute(sa.update(t.jobs).where(*claimed).values(claims=t.jobs.c.claims - 1))


def append_to_log(connection: Connection, job_id: str, message: str, now: datetime) -> None:
    """Add a line to a job's log. A long log keeps its first FIRST_LINES and its last LAST_LINES lines."""
    log = [dict(line) for line in get(connection, job_id, brief=True).log]
    log.append({"at": now.astimezone(UTC).isoformat(), "message": message})
    write(connection, job_id, log=[*log[:FIRST_LINES], *log[FIRST_LINES:][-LAST_LINES:]])


def is_cancel_requested(connection: Connection, job_id: str) -> bool:
    """Whether the cancellation of a job was requested."""
    select = sa.select(t.jobs.c.cancel_asked_at).where(t.jobs.c.id == job_id)
    return connection.execute(select).scalar_one_or_none() is not None


def finish(connection: Connection, job_id: str, *, version: int | None = None, error: str | None = None, now: datetime) -> None:
    """End a job as failed if there is an error, else as done."""
    status, progress = ("failed", {}) if error is not None else ("done", {"progress": 1.0})
    if error is not None or version is not None:
        append_to_log(connection, job_id, f"failed: {error}" if error is not None else f"published as version {version}", now)
    ended = {"finished_at": now, "stage": None, "retry_at": None}
    write(connection, job_id, status=status, version=version, error=error, **ended, **progress)


def finish_cancelled(connection: Connection, job_id: str, *, now: datetime) -> None:
    """End a job as cancelled by its `cancelled_by`."""
    job = get(connection, job_id, brief=True)
    append_to_log(connection, job_id, f"cancelled by {job.cancelled_by}", now)
    ended = {"finished_at": now, "stage": None, "retry_at": None}
    write(connection, job_id, status="cancelled", error=f"cancelled by {job.cancelled_by}", **ended)


def _job(row: RowMapping) -> Job:
    names = Job.__dataclass_fields__.keys() - {"edit_ids", "log"}
    return Job(edit_ids=tuple(row.get("edit_ids", ())), log=tuple(row["log"]), **{name: row[name] for name in names})
