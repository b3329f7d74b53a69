"""What asking for a retrain comes to: one job for one piece of work, and none where nothing would change."""

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
from tests.lifecycle.local_store import PATIENT, House, new_house, once


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path, settings=LifecycleSettings(cadence=replace(PATIENT, method="baft"), look_s=0.0))
    yield made
    made.close()


def now(house: House, job: Job) -> Job:
    with house.store.read() as connection:
        return jobs.get(connection, job.id)


def retrained(house: House) -> Job:
    job = house.retrain()
    house.worker.drain()
    return now(house, job)


def asked_meanwhile(house: House, *modes: str | None, before: tuple[str, str] | None = None) -> tuple[Job, list[Job]]:
    """A major retrain, and what was answered to those who asked again while it ran, after posting an edit perhaps."""
    first, again = house.retrain("major"), []

    def ask() -> None:
        if before is not None:
            house.post(before)
            house.worker._advance()
        again.extend(house.retrain(mode) for mode in modes)  # type: ignore[arg-type]

    house.ledger.during = once(ask)  # type: ignore[assignment]
    house.worker.drain()
    return first, again


def test_a_retrain_of_nothing_new_is_refused_and_changes_nothing(house: House) -> None:
    house.live(("a", "1"))
    retrained(house)
    head = house.head

    for mode in (None, "minor"):
        with pytest.raises(Conflict, match="nothing new"):
            house.retrain(mode)  # type: ignore[arg-type]

    house.worker.drain()
    assert house.head == head


def test_a_major_one_of_nothing_new_may_be_asked_for(house: House) -> None:
    house.live(("a", "1"))
    retrained(house)

    job = house.retrain("major")
    house.worker.drain()

    assert now(house, job).status == "done"


def test_who_asks_again_while_one_runs_on_all_there_is_gets_that_one(house: House) -> None:
    house.live(("a", "1"))

    first, again = asked_meanwhile(house, None, "minor", "major")

    assert {job.id for job in again} == {first.id}
    with house.store.read() as connection:
        assert [job.id for job in jobs.page(connection, limit=9, kind="retrain")] == [first.id]


def test_an_edit_that_came_since_makes_another_one_worth_its_while(house: House) -> None:
    house.live(("a", "1"))

    first, again = asked_meanwhile(house, None, before=("b", "2"))

    assert again[0].id != first.id
    assert now(house, again[0]).status == "done"
    assert house.head.window == 0


def test_a_job_that_is_made_major_says_who_wanted_that_and_why(house: House) -> None:
    house.live(("a", "1"))
    waiting = house.retrain()

    made = request_retrain(house.store, author="bob", reason="the canary fell", mode="major")

    assert (made.id, made.mode, made.reason) == (waiting.id, "major", "the canary fell")
    assert made.log[-1]["message"] == "bob asked for it to be major"


def test_one_that_is_cancelled_before_it_began_is_one_line_of_the_log(house: House) -> None:
    house.live(("a", "1"))
    job = house.retrain()

    with capture_logs() as lines:
        cancel_job(house.store, job.id, author="bob")
        house.worker.drain()

    assert [(line["job"], line["status"]) for line in lines if line["event"] == "retrain ended"] == [(job.id, "cancelled")]
