"""Requests for a retrain: one job for one piece of work, and none where nothing would change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.background.jobs import cancel_job
from service.domain.errors import Conflict
from service.lifecycle.retrain.request import request_retrain
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs
from service.store.jobs import Job
from tests.lifecycle.local_service import PATIENT, LocalService, new_local_service, once


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=replace(PATIENT, automatic=False), look_s=0.0))
    yield made
    made.close()


def job_now(local: LocalService, job: Job) -> Job:
    with local.store.read() as connection:
        return jobs.get(connection, job.id)


def retrained(local: LocalService) -> Job:
    job = local.retrain()
    local.worker.drain()
    return job_now(local, job)


def asked_meanwhile(local: LocalService, *modes: str | None, before: tuple[str, str] | None = None) -> tuple[Job, list[Job]]:
    """A major retrain, and what was answered to those who asked again while it ran, after posting an edit perhaps."""
    first, again = local.retrain("major"), []

    def ask() -> None:
        if before is not None:
            local.post(before)
            local.worker._advance()
        again.extend(local.retrain(mode) for mode in modes)  # type: ignore[arg-type]

    local.ledger.during_fit = once(ask)  # type: ignore[assignment]
    local.worker.drain()
    return first, again


def test_a_retrain_of_nothing_new_is_refused_and_changes_nothing(local: LocalService) -> None:
    local.live(("a", "1"))
    retrained(local)
    head = local.head

    for mode in (None, "minor"):
        with pytest.raises(Conflict, match="nothing new"):
            local.retrain(mode)  # type: ignore[arg-type]

    local.worker.drain()
    assert local.head == head


def test_a_major_retrain_without_new_edits_may_be_requested(local: LocalService) -> None:
    local.live(("a", "1"))
    retrained(local)

    job = local.retrain("major")
    local.worker.drain()

    assert job_now(local, job).status == "done"


def test_a_request_during_a_retrain_of_all_edits_returns_the_running_job(local: LocalService) -> None:
    local.live(("a", "1"))

    first, again = asked_meanwhile(local, None, "minor", "major")

    assert {job.id for job in again} == {first.id}
    with local.store.read() as connection:
        assert [job.id for job in jobs.read_page(connection, limit=9, kind="retrain")] == [first.id]


def test_a_request_during_a_retrain_queues_another_if_there_are_new_edits(local: LocalService) -> None:
    local.live(("a", "1"))

    first, again = asked_meanwhile(local, None, before=("b", "2"))

    assert again[0].id != first.id
    assert job_now(local, again[0]).status == "done"
    assert local.head.window == 0


def test_a_job_that_becomes_major_records_who_asked_for_it_and_why(local: LocalService) -> None:
    local.live(("a", "1"))
    waiting = local.retrain()

    made = request_retrain(local.store, author="bob", reason="locality fell", mode="major")

    assert (made.id, made.mode, made.reason) == (waiting.id, "major", "locality fell")
    assert made.log[-1]["message"] == "bob asked for it to be major"


def test_a_retrain_cancelled_before_its_start_is_one_line_of_the_log(local: LocalService) -> None:
    local.live(("a", "1"))
    job = local.retrain()

    with capture_logs() as lines:
        cancel_job(local.store, job.id, author="bob")
        local.worker.drain()

    assert [(line["job"], line["status"]) for line in lines if line["event"] == "retrain ended"] == [(job.id, "cancelled")]


def test_a_retrain_of_an_empty_store_is_refused(local: LocalService) -> None:
    with pytest.raises(Conflict, match="nothing to retrain"):
        local.retrain()


def test_two_requests_for_a_queued_retrain_share_one_job(local: LocalService) -> None:
    local.live(("a", "1"))

    assert local.retrain().id == local.retrain().id
