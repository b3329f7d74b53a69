"""The worker's statements at every edit and every sweep take no longer with a long history."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.lifecycle.settings import LifecycleSettings
from service.store.migrate import upgrade
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service
from tests.servers import postgres_database

GROWING = ("jobs", "measurements")


@contextmanager
def service_on(kind: str, folder: Path) -> Iterator[LocalService]:
    settings = LifecycleSettings(cadence=PATIENT)
    if kind == "sqlite":
        local = new_local_service(folder, settings=settings)
        yield local
        local.close()
        return
    with postgres_database() as url:
        upgrade(url)
        local = LocalService(url, folder / "checkpoints", settings=settings)
        yield local
        local.close()


def asked(local: LocalService) -> list[tuple[str, Any]]:
    """Every statement about a growing table while an edit is applied, a retrain is made, and nothing is due."""
    found: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not many and statement.startswith(("SELECT", "UPDATE", "DELETE")) and any(name in statement for name in GROWING):
            found.setdefault(statement, parameters)

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", note)
    try:
        local.live(("a", "1"), ("b", "2"))
        local.retrain()
        local.worker.drain()
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", note)
    return list(found.items())


def plan(local: LocalService, statement: str, parameters: Any) -> str:
    with local.store.write() as connection:
        if local.store.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return "; ".join(row[3] for row in rows)
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # it would be right for tables as small as these
        return "; ".join(row[0].strip() for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_statement_of_the_worker_reads_all_jobs_or_all_measurements(kind: str, tmp_path: Path) -> None:
    with service_on(kind, tmp_path) as local:
        plans = {statement: plan(local, statement, parameters) for statement, parameters in asked(local)}

    scans = [f"{scan} {name}" for name in GROWING for scan in ("SCAN", "Seq Scan on")]
    assert len(plans) > 5
    assert {statement: found for statement, found in plans.items() if any(scan in found for scan in scans)} == {}


def test_the_running_job_is_found_without_reading_finished_jobs(tmp_path: Path) -> None:
    with service_on("sqlite", tmp_path) as local:
        active = [
            plan(local, statement, parameters)
            for statement, parameters in asked(local)
            if statement.startswith("SELECT") and "jobs.status = ?" in statement
        ]

    assert active and all("uq_jobs_active" in found for found in active)
