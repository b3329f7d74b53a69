"""Rows of jobs: what a worker claimed and must repeat exactly if it dies, and how far it got."""

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
ACTIVE = sa.text(t.ACTIVE)  # word for word as the partial index has it: only then does SQLite use that, and not read every job


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work. `edit_ids` are ordered; `parent` and `seed` make a repetition give the same bytes."""

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
    version: int | None  # what it published
    fence: int | None  # of the worker that took it up last
    author: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    mode: str | None = None  # of a retrain: minor, major
    request: Mapping[str, Any] | None = None  # what an export was asked for
    result: Mapping[str, Any] | None = None
    log: tuple[Mapping[str, Any], ...] = ()  # {at, message}, oldest first
    cancel_asked_at: datetime | None = None
    cancelled_by: str | None = None
    retry_at: datetime | None = None  # while it waits between two attempts: when the next one is due

    @property
    def is_active(self) -> bool:
        return self.status in ("queued", "running")


def insert(
    connection: Connection,
    kind: str,
    *,
    edit_ids: Sequence[str] = (),
    mode: str | None = None,
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
        "request": None if request is None else dict(request),
        "log": [],
    }
    connection.execute(sa.insert(t.jobs).values(**row, reason=reason, author=author, created_at=now))
    return get(connection, job_id)


def get(connection: Connection, job_id: str, *, brief: bool = False) -> Job:
    """One job; a `brief` one comes without its edit ids. Raises NotFound."""
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
    """Jobs of a kind or of some, that stand so or so, newest first, older than the job `before`. `brief` ones come without
    their edit ids, of which a retrain may have megabytes. Raises NotFound if there is no job `before`.
    """
    select = (
        sa.select(*(BRIEF_COLUMNS if brief else t.jobs.c)).order_by(t.jobs.c.created_at.desc(), t.jobs.c.id.desc()).limit(limit)
    )
    for column, wanted in ((t.jobs.c.kind, kind), (t.jobs.c.status, status)):
        if wanted:
            select = select.where(column.in_([wanted] if isinstance(wanted, str) else wanted))
    if before is not None:
        last = get(connection, before, brief=True)
        at = t.jobs.c.created_at
        select = select.where((at < last.created_at) | ((at == last.created_at) & (t.jobs.c.id < last.id)))
    return [_job(row) for row in connection.execute(select).mappings()]


def read_recent_statuses(connection: Connection, kind: str, *, limit: int) -> list[tuple[str, datetime | None]]:
    """The status of the last jobs of a kind, newest first, each with when it ended."""
    columns = (t.jobs.c.status, t.jobs.c.finished_at)
    newest_first = (t.jobs.c.created_at.desc(), t.jobs.c.id.desc())
    select = sa.select(*columns).where(t.jobs.c.kind == kind).order_by(*newest_first).limit(limit)
    return [(row.status, row.finished_at) for row in connection.execute(select)]


def find_active(connection: Connection, kind: str, status: str | None = None, *, brief: bool = False) -> Job | None:
    """The job of a kind that runs, else the one that waits; or only the one with `status`. `brief`: without its edit ids."""
    statuses = ("running", "queued") if status is None else (status,)
    for one in statuses:
        select = sa.select(*(BRIEF_COLUMNS if brief else t.jobs.c)).where(t.jobs.c.kind == kind, t.jobs.c.status == one, ACTIVE)
        row = connection.execute(select).mappings().one_or_none()
        if row is not None:
            return _job(row)
    return None


def update(connection: Connection, job_id: str, **values: Any) -> Job:
    """Change a job's columns, and read it again."""
    write(connection, job_id, **values)
    return get(connection, job_id)


def write(connection: Connection, job_id: str, **values: Any) -> None:
    """Change a job's columns, without reading the whole job again."""
    if "edit_ids" in values:
        values["edit_ids"] = list(values["edit_ids"])
    connection.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(**values))


def clear_retry(connection: Connection, kind: str) -> None:
    """Note that the running job of a kind waits no longer for its next attempt."""
    running = (t.jobs.c.kind == kind, t.jobs.c.status == "running", ACTIVE)
    connection.execute(sa.update(t.jobs).where(*running).values(retry_at=None, stage=None))


def uncount_claim(connection: Connection, fence: int) -> None:
    """Do not count that the worker with this fence took up what it leaves running: it ends in good order."""
    mine = (t.jobs.c.status == "running", t.jobs.c.fence == fence, t.jobs.c.claims > 0)
    connection.execute(sa.update(t.jobs).where(*mine).values(claims=t.jobs.c.claims - 1))


def append_to_log(connection: Connection, job_id: str, message: str, now: datetime) -> None:
    """Add a line to a job's log. Of a log that grows long the beginning and the end are kept."""
    log = [dict(line) for line in get(connection, job_id, brief=True).log]
    log.append({"at": now.astimezone(UTC).isoformat(), "message": message})
    write(connection, job_id, log=[*log[:FIRST_LINES], *log[FIRST_LINES:][-LAST_LINES:]])


def is_cancel_requested(connection: Connection, job_id: str) -> bool:
    """Whether somebody asked for a job to be cancelled."""
    select = sa.select(t.jobs.c.cancel_asked_at).where(t.jobs.c.id == job_id)
    return connection.execute(select).scalar_one_or_none() is not None


def finish(connection: Connection, job_id: str, *, version: int | None = None, error: str | None = None, now: datetime) -> None:
    """End a job: failed if there is an error, else done."""
    status, progress = ("failed", {}) if error is not None else ("done", {"progress": 1.0})
    if error is not None or version is not None:
        append_to_log(connection, job_id, f"failed: {error}" if error is not None else f"published as version {version}", now)
    ended = {"finished_at": now, "stage": None, "retry_at": None}
    write(connection, job_id, status=status, version=version, error=error, **ended, **progress)


def finish_cancelled(connection: Connection, job_id: str, *, now: datetime) -> None:
    """End a job as its `cancelled_by` asked."""
    job = get(connection, job_id, brief=True)
    append_to_log(connection, job_id, f"cancelled by {job.cancelled_by}", now)
    ended = {"finished_at": now, "stage": None, "retry_at": None}
    write(connection, job_id, status="cancelled", error=f"cancelled by {job.cancelled_by}", **ended)


def _job(row: RowMapping) -> Job:
    names = Job.__dataclass_fields__.keys() - {"edit_ids", "log"}
    return Job(edit_ids=tuple(row.get("edit_ids", ())), log=tuple(row["log"]), **{name: row[name] for name in names})
