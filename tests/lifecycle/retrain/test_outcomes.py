"""How a retrain ends: the tensors and the window that it publishes, the refusals, and the repetition after a crash."""

from pathlib import Path

import pytest

from service.domain.acceptance import AcceptanceLimits
from service.domain.edit import EditStatus
from service.lifecycle.settings import LifecycleSettings
from service.store import jobs
from tests.lifecycle.local_service import PATIENT, Crash, LocalService, LoseNewest, new_local_service, once

S = EditStatus


def test_a_retrain_consolidates_the_window_and_the_deferred_edits(local: LocalService) -> None:
    made = local.live(("a", "1")) + local.post(("b", "2"), method="locft")
    assert local.statuses(made) == [S.APPLIED, S.DEFERRED]

    job = local.retrain()
    local.worker.drain()

    assert local.statuses(made) == [S.CONSOLIDATED] * 2
    assert local.live_set.window == ()
    assert (local.says("a"), local.says("b")) == ("1", "2")
    with local.store.read() as connection:
        done = jobs.get(connection, job.id)
    assert (done.status, done.version, done.progress) == ("done", local.head.number, 1.0)


def test_edits_applied_during_a_retrain_are_its_new_window(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))

    def meanwhile() -> None:
        local.post(("c", "3"))
        local.worker._advance()

    local.retrain()
    local.ledger.during_fit = once(meanwhile)  # type: ignore[assignment]
    local.worker.drain()

    assert local.statuses([a, b]) == [S.CONSOLIDATED] * 2
    assert [local.edit_by("c").status] == [S.APPLIED]
    assert [local.says(name) for name in "abc"] == ["1", "2", "3"]
    assert local.head.kind == "locft"
    assert [method for method, _, _ in local.ledger.fits].count("locft") == 1


def test_an_edit_retracted_during_a_retrain_is_not_in_the_published_tensors(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.ledger.during_fit = once(lambda: local.retract(a))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, b]) == [S.RETRACTED, S.CONSOLIDATED]
    assert [item.edit_id for item in local.live_set.items] == [b.id]
    assert all("1" not in targets for method, targets, _ in local.ledger.fits[-1:])
    assert local.says("a") == "base of prompt:a"


def test_after_a_rollback_a_running_retrain_trains_on_the_edits_left(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.retrain()
    local.ledger.during_fit = once(lambda: local.roll_back(1))  # type: ignore[assignment]

    local.worker.drain()

    assert local.statuses([a, b]) == [S.CONSOLIDATED, S.ROLLED_BACK]
    assert (local.says("a"), local.says("b")) == ("1", "base of prompt:b")


def test_applying_pauses_for_a_retrain_that_lost_its_publication_too_often(local: LocalService) -> None:
    local.live(("a", "1"))
    names = iter("bcdefghijk")

    def another(method: str) -> None:
        name = next(names, None)
        if name is not None and not local.worker._apply_pause:
            local.ledger.during_fit = lambda method: None
            local.post((name, "1"))
            local.worker._advance()
            local.ledger.during_fit = another

    local.retrain()
    local.ledger.during_fit = another
    local.worker._hold_lease()
    local.worker._retrain()

    assert local.head.kind == "locft"
    assert not local.worker._apply_pause
    local.ledger.during_fit = lambda method: None
    local.worker.drain()
    assert local.says("b") == "1"


def test_an_edit_that_a_retrain_loses_stays_in_the_window(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    local.ledger.not_taken["locft"] = {"2"}

    local.retrain()
    local.worker.drain()

    assert local.statuses([a, b]) == [S.CONSOLIDATED, S.APPLIED]
    assert local.says("b") == "2"


def test_an_edit_that_both_methods_lose_fails_with_a_reason(local: LocalService) -> None:
    local.live(("a", "1"))
    local.ledger.not_taken = {"baft": {"2"}, "locft": {"2"}}
    (b,) = local.live(("b", "2"))
    assert local.statuses([b]) == [S.DEFERRED]

    local.retrain()
    local.worker.drain()

    assert local.statuses([b]) == [S.FAILED]
    assert local.says("a") == "1"
    assert local.edit(b).error


def test_a_refused_retrain_fails_with_the_figures_and_changes_nothing(local: LocalService) -> None:
    made = local.live(("a", "1"))
    local.ledger.far = lambda size: 0.1 if size == 0 else 1.0

    job = local.retrain()
    local.worker.drain()

    with local.store.read() as connection:
        refused = jobs.get(connection, job.id)
    assert refused.status == "failed" and "90%" in str(refused.error)
    assert local.statuses(made) == [S.APPLIED]
    assert "candidate.refused" in local.event_types()


def test_a_retrain_whose_loss_is_not_finite_fails_at_its_first_attempt(
    local: LocalService,
) -> None:
    local.live(("a", "1"))
    local.ledger.failing_targets = {"1"}

    job = local.retrain()
    local.worker.drain()

    with local.store.read() as connection:
        broken = jobs.get(connection, job.id)
    assert (broken.status, broken.failures, broken.error) == ("failed", 1, "the loss is not finite")
    assert local.says("a") == "1"


def test_the_retrain_of_a_dead_worker_is_repeated_exactly(local: LocalService) -> None:
    def die() -> None:
        raise Crash

    local.live(("a", "1"), ("b", "2"))
    job = local.retrain()
    local.ledger.during_fit = once(die)  # type: ignore[assignment]
    with pytest.raises(Crash):
        local.worker.drain()
    local.post(("c", "3"))
    local = local.again()
    local.worker.drain()

    first, again = [fit for fit in local.ledger.fits if fit[0] == "locft"]
    assert first == again
    with local.store.read() as connection:
        assert jobs.get(connection, job.id).status == "done"
    local.close()


def test_a_retrain_that_loses_too_many_edits_is_refused(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    local.ledger.not_taken["locft"] = set("abcdefgh")
    LoseNewest(local)

    job = local.retrain()
    local.worker.drain()

    with local.store.read() as connection:
        refused = jobs.get(connection, job.id)
    assert refused.status == "failed" and "4 of 8" in str(refused.error)
    assert local.statuses(made) == [S.APPLIED] * 8
    assert [local.says(name) for name in "abcdefgh"] == list("abcdefgh")


def test_after_the_last_round_a_retrain_publishes_the_edits_that_were_not_lost(tmp_path: Path) -> None:
    local = new_local_service(
        tmp_path, settings=LifecycleSettings(cadence=PATIENT, acceptance=AcceptanceLimits(retrain_losses=0.5))
    )
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    local.ledger.not_taken["locft"] = set("abcdefgh")
    LoseNewest(local)

    local.retrain()
    local.worker.drain()

    assert local.statuses(made) == [S.APPLIED] * 4 + [S.FAILED] * 4
    assert [local.says(name) for name in "abcd"] == list("abcd")
