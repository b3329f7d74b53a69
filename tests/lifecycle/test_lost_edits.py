"""Edits that an overlay was trained on and lost: they stay in the live set, and can be retracted and purged."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.background.purge import purge
from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence
from service.domain.edit import EditStatus
from service.domain.errors import Conflict
from service.domain.liveset import Role
from service.lifecycle.revoke import revoke
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.ledger import trained_edits_of
from tests.lifecycle.local_service import MANUAL, LocalService, LoseNewest, new_local_service, retrained

S = EditStatus


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=MANUAL))
    yield made
    made.close()


def roles(local: LocalService) -> dict[str, tuple[str, str, bool]]:
    """By target: role, carrier, held."""
    return {
        edit.target: (str(item.role), str(item.carrier), item.is_in_tensors)
        for edit in local.all_edits()
        if (item := local.live_set.get(edit.id)) is not None
    }


def lesson_targets(local: LocalService) -> set[str]:
    """The targets that the head was trained on, in tensors or window."""
    return {target for _, target in trained_edits_of(local.context.follower.current.overlay)}


def make_all_methods_lose(local: LocalService, *targets: str) -> None:
    local.ledger.not_taken = {"baft": set(targets), "locft": set(targets)}


# A retrain


def test_an_edit_that_failed_in_a_retrain_is_in_the_live_set_of_its_version(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    make_all_methods_lose(local, "1")

    retrained(local)

    assert local.statuses([a]) == [S.FAILED]
    assert roles(local) == {"1": ("lost", "tensors", True), "2": ("live", "tensors", True)}
    assert "1" in lesson_targets(local)
    assert local.unknown_lessons() == []


def test_a_failed_edit_is_purged_only_after_a_major_retrain_without_it(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    make_all_methods_lose(local, "1")
    retrained(local)
    local.live(("c", "3"))
    assert retrained(local, "minor").mode == "minor"
    assert roles(local)["1"] == ("lost", "tensors", True)
    with pytest.raises(Conflict, match="major retrain"):
        purge(local.context, edit_ids=[a.id], by="ann", exports=local.exports)

    retrained(local, "major")

    assert "1" not in lesson_targets(local)
    assert local.live_set.get(a.id) is None
    report = purge(local.context, edit_ids=[a.id], by="ann", exports=local.exports)
    assert report.versions == (1, 2, 3, 4, 5)[: local.head.number - 1]


def test_retracting_a_failed_edit_that_the_head_was_trained_on_makes_a_major_retrain(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    a, _ = local.live(("a", "1"), ("b", "2"))
    make_all_methods_lose(local, "1")
    retrained(local)
    assert local.statuses([a]) == [S.FAILED]
    tombstones = []
    local.ledger.during_fit = lambda method: tombstones.append(method)

    local.retract(a)
    local.worker.drain()

    assert local.statuses([a]) == [S.RETRACTED]
    assert tombstones == ["baft", "locft"]
    assert local.head.kind == "locft" and local.head.minors == 0
    assert lesson_targets(local) == {"2"}
    assert local.live_set.get(a.id) is None
    local.close()


def test_a_retracted_failure_has_a_tombstone_until_the_major_retrain(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    make_all_methods_lose(local, "1")
    retrained(local)

    local.retract(a)
    local.worker.drain()

    assert roles(local)["1"] == ("tombstone", "window", True)
    assert local.says("a") == "base of prompt:a"


def test_revoking_an_author_retracts_failed_edits_that_the_head_was_trained_on(local: LocalService) -> None:
    local.post(("a", "1"), author="eve")
    local.live(("b", "2"))
    make_all_methods_lose(local, "1")
    retrained(local)

    revoke(local.store, author="eve", since=datetime(2020, 1, 1, tzinfo=UTC), by="ann", reason=None)
    local.worker.drain()

    assert roles(local)["1"] == ("tombstone", "window", True)


def test_a_failed_edit_that_nothing_was_trained_on_cannot_be_retracted(local: LocalService) -> None:
    local.ledger.failing_targets = {"1"}
    (a,) = local.live(("a", "1"))
    assert local.statuses([a]) == [S.FAILED]

    with pytest.raises(Conflict, match="nothing of it is live"):
        local.retract(a)


def test_a_failed_edit_makes_no_retrain_and_no_refit_due(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    local.live(("a", "1"), ("b", "2"))
    make_all_methods_lose(local, "1")
    retrained(local)
    head = local.head.number

    local.worker.drain()

    assert local.head.number == head
    assert not local.live_set.needs_refit
    local.close()


def test_a_rollback_to_a_version_that_lost_a_retracted_edit_makes_a_tombstone(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    make_all_methods_lose(local, "1")
    retrained(local)
    lossy = local.head.number
    local.retract(a)
    retrained(local, "major")
    assert roles(local) == {"2": ("live", "tensors", True)}

    local.roll_back(lossy)
    local.worker.drain()

    assert roles(local)["1"] == ("tombstone", "window", True)


def test_a_deferred_edit_that_fails_in_a_retrain_supersedes_nothing(local: LocalService) -> None:
    (older,) = local.live(("a", "1"))
    (newer,) = local.post(("a", "2"), method="locft")
    make_all_methods_lose(local, "2")

    retrained(local)

    assert local.statuses([older, newer]) == [S.DEFERRED, S.FAILED]
    retrained(local)
    assert local.statuses([older, newer]) == [S.CONSOLIDATED, S.FAILED]
    assert local.says("a") == "1"


# The last round


def test_an_edit_lost_in_the_last_round_of_an_apply_is_in_the_live_set_until_a_refit(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    LoseNewest(local)
    local.worker.drain()
    assert local.statuses(made) == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert roles(local)["e"] == ("lost", "window", False) and "f" not in roles(local)
    assert lesson_targets(local) == set("abcde")

    local.ledger.not_taken["baft"] = set()
    local.retract(made[4])
    local.worker.drain()

    assert local.statuses(made[4:5]) == [S.RETRACTED]
    assert lesson_targets(local) == set("abcd") and local.unknown_lessons() == []
    assert local.head.kind == "retract"


def test_an_edit_lost_in_the_last_round_of_a_refit_makes_no_other_refit_due(local: LocalService) -> None:
    made = local.post(*((name, name) for name in "abcdefgh"))
    local.worker.drain()
    LoseNewest(local)

    local.retract(made[0])
    local.worker.drain()

    assert [target for target, stands in roles(local).items() if stands[0] == Role.LOST] == ["e"]
    assert [version.kind for version in local.versions()][-1] == "retract"
    assert len(local.versions()) == 3
    assert local.unknown_lessons() == []


def test_an_addition_lost_in_the_last_round_of_a_retrain_is_in_the_live_set(tmp_path: Path) -> None:
    lenient = LifecycleSettings(cadence=MANUAL, acceptance=AcceptanceLimits(retrain_losses=0.9))
    local = new_local_service(tmp_path, settings=lenient)
    local.live(("a", "1"))

    def meanwhile(method: str) -> None:
        local.ledger.during_fit = lambda method: None
        local.post(*((name, name) for name in "stuvwxyz"))
        local.worker._advance()
        LoseNewest(local)

    local.retrain()
    local.ledger.during_fit = meanwhile
    local.worker.drain()

    assert [local.edit_by(name).status for name in "stuvwxyz"] == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert roles(local)["w"] == ("lost", "window", False)
    assert local.unknown_lessons() == []
    local.close()


# Settled edits that the new window costs


def arrives_in_a_retrain(local: LocalService, *facts: tuple[str, str]) -> None:
    """During the next training these are applied; on the new tensors the last of them will cost all others."""

    def meanwhile(method: str) -> None:
        local.ledger.during_fit = lambda method: None
        for fact in facts:
            local.post(fact)
            local.worker._advance()
        local.ledger.displacing_targets = {facts[-1][1]}

    local.ledger.during_fit = meanwhile


def test_an_addition_that_loses_consolidated_edits_is_deferred(local: LocalService) -> None:
    many = local.live(*((f"k{n}", f"v{n}") for n in range(10)))
    arrives_in_a_retrain(local, ("w", "W"), ("x", "X"))

    assert retrained(local).status == "done"

    assert local.statuses(many) == [S.CONSOLIDATED] * 10
    w, x = local.edit_by("w"), local.edit_by("x")
    assert (w.status, x.status) == (S.APPLIED, S.DEFERRED)
    assert "would have been lost" in str(x.error)
    assert local.head.scores["retention"] == 1.0 and "lost" not in local.head.scores


def test_a_retrain_whose_window_loses_consolidated_edits_is_refused(local: LocalService) -> None:
    many = local.live(*((f"k{n}", f"v{n}") for n in range(10)))
    local.ledger.not_taken["locft"] = {"v0"}
    local.ledger.displacing_targets = {"v0"}
    head = local.head.number

    job = retrained(local)

    assert job.status == "failed" and "9 of 10" in str(job.error)
    assert local.head.number == head and local.statuses(many) == [S.APPLIED] * 10


def test_a_retrain_that_loses_more_edits_than_a_window_holds_is_refused(tmp_path: Path) -> None:
    local = new_local_service(
        tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=1_000, hard=5, deferred=1_000, automatic=False))
    )
    local.post(*((f"k{n}", f"v{n}") for n in range(20)), method="locft")
    local.ledger.not_taken["locft"] = {f"v{n}" for n in range(8)}
    trainings: list[str] = []

    def meanwhile(method: str) -> None:
        if method == "locft":
            trainings.append(method)
            local.post((f"new{len(trainings)}", "x"), method="baft")
            local.worker._advance()

    local.ledger.during_fit = meanwhile
    job = retrained(local)

    assert job.status == "failed" and "lost 8 edits" in str(job.error)
    assert len(trainings) == 1
    local.close()
