"""Applying: the edits that a job publishes, defers or fails, and the repetition of a job after a crash."""

from pathlib import Path

import pytest

from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.local_service import PATIENT, Crash, LocalService, LoseNewest, new_local_service, once

S = EditStatus


def test_edits_that_wait_together_are_one_job_and_one_version(local: LocalService) -> None:
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 3
    assert [version.number for version in local.versions()] == [0, 1]
    assert local.head.edits_counted == 3


def test_of_two_edits_of_one_fact_in_a_batch_the_later_supersedes_the_earlier(local: LocalService) -> None:
    first, second = local.post(("a", "1"), ("a", "2"))

    local.worker.drain()

    assert local.statuses([first, second]) == [S.SUPERSEDED, S.APPLIED]
    assert local.edit(first).superseded_by == second.id
    assert local.edit(second).supersedes == first.id
    assert local.ledger.fits[0][1] == ("2",)


def test_a_newer_edit_that_fails_supersedes_nothing(local: LocalService) -> None:
    (first,) = local.live(("a", "1"))
    local.ledger.failing_targets = {"2"}

    (second,) = local.live(("a", "2"))

    assert local.statuses([first, second]) == [S.APPLIED, S.FAILED]
    assert local.says("a") == "1"


def test_a_lost_edit_is_deferred_and_the_others_of_its_job_are_published(local: LocalService) -> None:
    local.ledger.not_taken["baft"] = {"2"}
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.DEFERRED, S.APPLIED]
    assert (local.says("a"), local.says("b"), local.says("c")) == ("1", "base of prompt:b", "3")
    assert "retrain" in str(local.edit(made[1]).error)


def test_an_edit_whose_fit_loses_live_edits_is_deferred(local: LocalService) -> None:
    local.live(("a", "1"))
    local.ledger.displacing_targets = {"3"}
    made = local.post(("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.DEFERRED]
    assert local.live_set.ids == {item.edit_id for item in local.live_set.items}


def test_a_live_edit_that_the_head_lost_does_not_block_new_edits(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.worker.drain()
    local.live(("c", "3"), ("d", "4"))
    local.ledger.forgotten_targets = {"1"}
    local.retract(local.edit_by("c"))
    local.worker.drain()
    assert local.head.scores["lost"] == [local.edit_by("a").id]

    (made,) = local.live(("e", "5"))

    assert local.statuses([made]) == [S.APPLIED]


def test_if_the_newer_edit_of_one_fact_is_lost_the_older_is_applied(local: LocalService) -> None:
    local.ledger.not_taken["baft"] = {"2"}
    made = local.post(("a", "1"), ("a", "2"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.DEFERRED]
    assert local.says("a") == "1"


def test_an_edit_fails_after_three_broken_fits_and_the_queue_goes_on(local: LocalService) -> None:
    local.ledger.failing_targets = {"2"}
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.FAILED, S.APPLIED]
    alone = [seed for method, targets, seed in local.ledger.fits if targets == ("2",)]
    assert len(alone) == len(set(alone)) == 3
    assert local.edit(made[1]).error == "the loss is not finite"


def test_after_a_refused_batch_its_older_half_is_applied(local: LocalService) -> None:
    local.ledger.far = lambda size: 1.0 if size <= 2 else 0.5
    made = local.post(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED, S.APPLIED, S.DEFERRED, S.DEFERRED]
    assert "50%" in str(local.edit(made[2]).error)


def test_a_full_window_makes_edits_wait_for_the_retrain_that_is_due(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=3)))
    made = local.post(*((name, "1") for name in "abcde"))

    local.worker.drain()

    assert local.statuses(made)[:3] == [S.CONSOLIDATED] * 3
    assert {status.is_live for status in local.statuses(made)} == {True}
    assert all(version.window <= 3 for version in local.versions())
    assert "locft" in {version.kind for version in local.versions()}
    local.close()


def test_a_full_window_defers_edits_if_no_automatic_retrain_is_set(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=2, hard=3, automatic=False)))
    made = local.post(*((name, "1") for name in "abcde"))

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 3 + [S.DEFERRED] * 2
    local.close()


def test_the_same_edits_give_the_same_bytes_in_another_store(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        local = new_local_service(tmp_path / name)
        local.live(("a", "1"), ("b", "2"))
        digests.append(([version.digest for version in local.versions()], local.ledger.fits))
        local.close()

    assert digests[0] == digests[1]


def test_the_job_of_a_dead_worker_is_repeated_exactly(local: LocalService) -> None:
    def die() -> None:
        raise Crash

    made = local.post(("a", "1"), ("b", "2"))
    local.ledger.during_fit = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        local.worker.drain()
    late = local.post(("c", "3"))
    assert local.statuses(made + late) == [S.APPLYING, S.APPLYING, S.QUEUED]

    local = local.again()
    local.worker.drain()

    first, again, last = local.ledger.fits
    assert first == again and last[1] == ("3",)
    assert local.statuses(made + late) == [S.APPLIED] * 3
    local.close()


def test_a_job_that_kills_the_process_as_often_as_claims_allow_fails(tmp_path: Path) -> None:
    local = new_local_service(tmp_path, settings=LifecycleSettings(cadence=PATIENT, claims=2))

    def die(method: str) -> None:
        raise Crash

    made = local.post(("a", "1"))
    local.ledger.during_fit = die
    for _ in range(2):
        with pytest.raises(Crash):
            local.worker.drain()
        local = local.again()
    local.worker.drain()

    assert local.statuses(made) == [S.FAILED]
    local.close()


def test_after_the_last_round_an_apply_publishes_the_edits_that_were_not_lost(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    LoseNewest(local)

    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert [local.says(name) for name in "abcd"] == list("abcd")
