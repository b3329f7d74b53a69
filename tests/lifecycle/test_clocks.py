"""Servers whose clocks do not agree: times that are compared or ordered are the database's."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from service.background.exports import request_export
from service.background.jobs import cancel_job, list_jobs
from service.domain.errors import Unavailable
from service.lifecycle.revoke import revoke
from service.store import clock
from service.store.clock import Clock, read_now
from service.store.migrate import upgrade
from tests.lifecycle.local_service import LocalService
from tests.servers import postgres_database

HOUR = timedelta(hours=1)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    with postgres_database() as url:
        upgrade(url)
        made = LocalService(url, tmp_path)
        yield made
        made.close()


@contextmanager
def shifted(by: timedelta) -> Iterator[None]:
    """Within the block the machine's clock is wrong by so much, for whatever asks it in this process."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    with pytest.MonkeyPatch.context() as patched:
        for name, module in list(sys.modules.items()):
            if name.startswith("service.") and getattr(module, "datetime", None) is datetime:
                patched.setattr(module, "datetime", Shifted)
        yield


def moment_of(local: LocalService) -> datetime:
    with local.store.read() as connection:
        return read_now(connection)


@pytest.mark.parametrize("posted", [-HOUR, HOUR], ids=["posted where the clock is late", "posted where it is early"])
@pytest.mark.parametrize("revoked", [-HOUR, timedelta(), HOUR], ids=["revoked late", "revoked on time", "revoked early"])
def test_revoking_since_a_moment_finds_what_was_posted_since(posted: timedelta, revoked: timedelta, local: LocalService) -> None:
    (before,) = local.post(("before", "x"), author="mallory")
    since = moment_of(local)
    with shifted(posted):
        (after,) = local.post(("after", "x"), author="mallory")

    with shifted(revoked):
        result = revoke(local.store, author="mallory", since=since, by="ann", reason=None)

    assert result.retracted == (after.id,)
    assert local.edit(before).created_at <= since <= local.edit(after).created_at


def test_jobs_are_listed_in_the_order_in_which_they_were_asked_for(local: LocalService) -> None:
    local.live(("a", "x"))
    asked = []
    for by in (timedelta(), -HOUR, HOUR, -2 * HOUR):
        with shifted(by):
            job = request_export(local.store, local.folder.parent / "exports", version=1, name=f"e{len(asked)}", author="ann")
            cancel_job(local.store, job.id, author="ann")
        asked.append(job.id)

    first = list_jobs(local.store, limit=2, kind="export")
    rest = list_jobs(local.store, limit=10, kind="export", before=first[-1].id)

    assert [job.id for job in (*first, *rest)] == asked[::-1]


def test_what_a_worker_writes_is_in_the_same_order(local: LocalService) -> None:
    (first,) = local.live(("a", "x"))
    with shifted(-HOUR):
        (second,) = local.live(("b", "x"))
    found = [local.edit(edit) for edit in (first, second)]

    assert found[0].applied_at is not None and found[1].applied_at is not None
    assert found[0].created_at < found[1].created_at
    assert found[0].applied_at < found[1].applied_at
    assert [version.created_at for version in local.versions()] == sorted(version.created_at for version in local.versions())


def test_the_clock_is_read_from_the_database_now_and_then_and_runs_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    then, looks = datetime(2020, 1, 1, tzinfo=UTC), []

    def look() -> datetime:
        looks.append(1)
        if len(looks) > 1:
            raise Unavailable("away")
        return then

    known = Clock(look)
    moments = [known() for _ in range(100)]
    assert (len(looks), moments) == (1, sorted(moments))
    monkeypatch.setattr(clock, "REFRESH_S", 0.0)
    known._next_read = 0.0
    time.sleep(0.01)
    assert then + timedelta(milliseconds=5) < known() < then + HOUR
    assert len(looks) == 2


def test_before_the_first_read_of_the_database_the_clock_is_this_machines() -> None:
    def away() -> datetime:
        raise Unavailable("away")

    assert abs(Clock(away)() - datetime.now(UTC)) < HOUR
