"""What the overlay was trained on and did not take: it stays known, it can be taken back, and nobody pretends that it is gone."""

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
from service.domain.version import VersionKind
from service.lifecycle.revoke import revoke
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.ledger import lessons_of
from tests.lifecycle.local_store import MANUAL, House, new_house, retrained
from tests.lifecycle.test_lifecycle_verbs import Stubborn

S = EditStatus


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path, settings=LifecycleSettings(cadence=MANUAL))
    yield made
    made.close()


def roles(house: House) -> dict[str, tuple[str, str, bool]]:
    """By target: role, carrier, held."""
    return {
        edit.target: (str(item.role), str(item.carrier), item.held)
        for edit in house.all_edits()
        if (item := house.live_set.get(edit.id)) is not None
    }


def learned(house: House) -> set[str]:
    """The targets that the head was trained on, in tensors or window."""
    return {target for _, target in lessons_of(house.parts.follower.current.overlay)}


def nobody_takes(house: House, *targets: str) -> None:
    house.ledger.not_taken = {"baft": set(targets), "locft": set(targets)}


# A retrain


def test_an_edit_that_failed_in_a_retrain_stays_known_to_the_version_that_was_trained_on_it(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    nobody_takes(house, "1")

    retrained(house)

    assert house.statuses([a]) == [S.FAILED]
    assert roles(house) == {"1": ("lost", "tensors", True), "2": ("live", "tensors", True)}
    assert "1" in learned(house)
    assert house.unknown_lessons() == []


def test_what_failed_is_not_purged_while_the_head_was_trained_on_it_and_is_after_a_major_retrain(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    nobody_takes(house, "1")
    retrained(house)
    house.live(("c", "3"))
    assert retrained(house, "minor").mode == "minor"
    assert roles(house)["1"] == ("lost", "tensors", True)
    with pytest.raises(Conflict, match="major retrain"):
        purge(house.parts, edit_ids=[a.id], by="ann")

    retrained(house, "major")

    assert "1" not in learned(house)
    assert house.live_set.get(a.id) is None
    assert purge(house.parts, edit_ids=[a.id], by="ann").versions == (1, 2, 3, 4, 5)[: house.head.number - 1]


def test_a_failed_edit_that_the_head_was_trained_on_is_retracted_and_a_major_retrain_follows(tmp_path: Path) -> None:
    house = new_house(tmp_path)
    a, _ = house.live(("a", "1"), ("b", "2"))
    nobody_takes(house, "1")
    retrained(house)
    assert house.statuses([a]) == [S.FAILED]
    tombstones = []
    house.ledger.during = lambda method: tombstones.append(method)

    house.retract(a)
    house.worker.drain()

    assert house.statuses([a]) == [S.RETRACTED]
    assert tombstones == ["baft", "locft"]
    assert house.head.kind is VersionKind.LOCFT and house.head.minors == 0
    assert learned(house) == {"2"}
    assert house.live_set.get(a.id) is None
    house.close()


def test_a_retracted_failure_has_a_tombstone_until_the_major_retrain(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    nobody_takes(house, "1")
    retrained(house)

    house.retract(a)
    house.worker.drain()

    assert roles(house)["1"] == ("tombstone", "window", True)
    assert house.says("a") == "base of prompt:a"


def test_revoking_an_author_takes_back_what_the_head_learned_of_their_failed_edits(house: House) -> None:
    house.post(("a", "1"), author="eve")
    house.live(("b", "2"))
    nobody_takes(house, "1")
    retrained(house)

    revoke(house.store, author="eve", since=datetime(2020, 1, 1, tzinfo=UTC), by="ann", reason=None)
    house.worker.drain()

    assert roles(house)["1"] == ("tombstone", "window", True)


def test_a_failed_edit_that_nothing_was_trained_on_cannot_be_retracted(house: House) -> None:
    house.ledger.breaks = {"1"}
    (a,) = house.live(("a", "1"))
    assert house.statuses([a]) == [S.FAILED]

    with pytest.raises(Conflict, match="nothing of it is live"):
        house.retract(a)


def test_a_failed_edit_makes_no_retrain_and_no_refit_due(tmp_path: Path) -> None:
    house = new_house(tmp_path)
    house.live(("a", "1"), ("b", "2"))
    nobody_takes(house, "1")
    retrained(house)
    head = house.head.number

    house.worker.drain()

    assert house.head.number == head
    assert not house.live_set.needs_refit
    house.close()


def test_after_a_rollback_to_a_version_that_lost_an_edit_taken_back_since_a_tombstone_answers(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    nobody_takes(house, "1")
    retrained(house)
    lossy = house.head.number
    house.retract(a)
    retrained(house, "major")
    assert roles(house) == {"2": ("live", "tensors", True)}

    house.roll_back(lossy)
    house.worker.drain()

    assert roles(house)["1"] == ("tombstone", "window", True)


def test_a_deferred_edit_that_fails_in_a_retrain_supersedes_nothing(house: House) -> None:
    (older,) = house.live(("a", "1"))
    (newer,) = house.post(("a", "2"), method="locft")
    nobody_takes(house, "2")

    retrained(house)

    assert house.statuses([older, newer]) == [S.DEFERRED, S.FAILED]
    retrained(house)
    assert house.statuses([older, newer]) == [S.CONSOLIDATED, S.FAILED]
    assert house.says("a") == "1"


# The last round


def test_what_an_apply_lost_in_its_last_round_stays_known_until_the_window_is_fitted_without_it(house: House) -> None:
    made = house.post(*((name, name) for name in "abcdefgh"))
    Stubborn(house)
    house.worker.drain()
    assert house.statuses(made) == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert roles(house)["e"] == ("lost", "window", False) and "f" not in roles(house)
    assert learned(house) == set("abcde")

    house.ledger.not_taken["baft"] = set()
    house.retract(made[4])
    house.worker.drain()

    assert house.statuses(made[4:5]) == [S.RETRACTED]
    assert learned(house) == set("abcd") and house.unknown_lessons() == []
    assert house.head.kind is VersionKind.RETRACT


def test_what_a_refit_lost_in_its_last_round_stays_known_and_asks_for_no_other_refit(house: House) -> None:
    made = house.post(*((name, name) for name in "abcdefgh"))
    house.worker.drain()
    Stubborn(house)

    house.retract(made[0])
    house.worker.drain()

    assert [target for target, stands in roles(house).items() if stands[0] == Role.LOST] == ["e"]
    assert [version.kind for version in house.versions()][-1] is VersionKind.RETRACT
    assert len(house.versions()) == 3
    assert house.unknown_lessons() == []


def test_an_edit_that_arrived_and_was_lost_in_the_last_round_of_a_retrain_stays_known(tmp_path: Path) -> None:
    lenient = LifecycleSettings(cadence=MANUAL, acceptance=AcceptanceLimits(retrain_losses=0.9))
    house = new_house(tmp_path, settings=lenient)
    house.live(("a", "1"))

    def meanwhile(method: str) -> None:
        house.ledger.during = lambda method: None
        house.post(*((name, name) for name in "stuvwxyz"))
        house.worker._advance()
        Stubborn(house)

    house.retrain()
    house.ledger.during = meanwhile
    house.worker.drain()

    assert [house.edit_by(name).status for name in "stuvwxyz"] == [S.APPLIED] * 4 + [S.DEFERRED] * 4
    assert roles(house)["w"] == ("lost", "window", False)
    assert house.unknown_lessons() == []
    house.close()


# Settled edits that the new window costs


def arrives_in_a_retrain(house: House, *facts: tuple[str, str]) -> None:
    """During the next training these are applied; on the new tensors the last of them will cost all others."""

    def meanwhile(method: str) -> None:
        house.ledger.during = lambda method: None
        for fact in facts:
            house.post(fact)
            house.worker._advance()
        house.ledger.costs = {facts[-1][1]}

    house.ledger.during = meanwhile


def test_an_edit_that_arrived_and_would_cost_edits_in_the_new_tensors_is_deferred(house: House) -> None:
    many = house.live(*((f"k{n}", f"v{n}") for n in range(10)))
    arrives_in_a_retrain(house, ("w", "W"), ("x", "X"))

    assert retrained(house).status == "done"

    assert house.statuses(many) == [S.CONSOLIDATED] * 10
    w, x = house.edit_by("w"), house.edit_by("x")
    assert (w.status, x.status) == (S.APPLIED, S.DEFERRED)
    assert "would have been lost" in str(x.error)
    assert house.head.scores["retention"] == 1.0 and "lost" not in house.head.scores


def test_a_retrain_whose_own_losses_would_cost_the_edits_in_its_tensors_is_refused(house: House) -> None:
    many = house.live(*((f"k{n}", f"v{n}") for n in range(10)))
    house.ledger.not_taken["locft"] = {"v0"}
    house.ledger.costs = {"v0"}
    head = house.head.number

    job = retrained(house)

    assert job.status == "failed" and "9 of 10" in str(job.error)
    assert house.head.number == head and house.statuses(many) == [S.APPLIED] * 10


def test_a_retrain_that_lost_more_edits_than_a_window_holds_is_refused_after_one_training(tmp_path: Path) -> None:
    house = new_house(tmp_path, settings=LifecycleSettings(cadence=Cadence(soft=1_000, hard=5, deferred=1_000, method="baft")))
    house.post(*((f"k{n}", f"v{n}") for n in range(20)), method="locft")
    house.ledger.not_taken["locft"] = {f"v{n}" for n in range(8)}
    trainings: list[str] = []

    def meanwhile(method: str) -> None:
        if method == "locft":
            trainings.append(method)
            house.post((f"new{len(trainings)}", "x"), method="baft")
            house.worker._advance()

    house.ledger.during = meanwhile
    job = retrained(house)

    assert job.status == "failed" and "lost 8 edits" in str(job.error)
    assert len(trainings) == 1
    house.close()
