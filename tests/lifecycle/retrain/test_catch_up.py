"""Who waits for whom between a retrain, its publication, and edits and retractions that go on meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.background.purge import purge
from service.domain.edit import EditStatus
from service.domain.errors import Conflict
from service.lifecycle.context import NoFits
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.ledger import tensors_of, window_of
from tests.lifecycle.local_store import MANUAL, House, new_house, once, retrained, trainings

S = EditStatus


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = new_house(tmp_path, settings=LifecycleSettings(cadence=MANUAL))
    yield made
    made.close()


def arrives(house: House, *facts: tuple[str, str]) -> None:
    """Edits that are applied one by one beside a retrain."""
    for fact in facts:
        house.post(fact)
        while house.worker._advance():
            pass


# Who goes first


def test_a_retrain_waits_for_fits_of_edits_of_retractions_and_of_its_own_new_window(house: House) -> None:
    a, b = house.live(("a", "1"), ("b", "2"))
    seen: list[tuple[str, bool]] = []
    house.ledger.during = lambda method: seen.append((method, house.parts.no_edit_is_fitted.is_set()))

    house.retract(a)
    house.live(("c", "3"))
    house.ledger.not_taken["locft"] = {"2"}
    retrained(house)

    assert seen == [("baft", False), ("baft", False), ("locft", True), ("baft", False)]
    assert house.parts.no_edit_is_fitted.is_set()
    assert house.statuses([b]) == [S.APPLIED]


def test_of_two_fits_at_once_the_last_to_end_lets_a_retrain_go_on() -> None:
    no_fits = NoFits()
    with no_fits.interrupted():
        other = threading.Event()

        def fit() -> None:
            with no_fits.interrupted():
                other.set()

        thread = threading.Thread(target=fit)
        thread.start()
        thread.join()
        assert other.is_set() and not no_fits.is_set()

    assert no_fits.is_set()


def test_a_fit_that_breaks_lets_a_retrain_go_on() -> None:
    no_fits = NoFits()

    with pytest.raises(ValueError), no_fits.interrupted():
        raise ValueError

    assert no_fits.is_set()


# Applying pauses for a publication only


def test_edits_are_applied_during_every_training_however_often_it_begins_again(house: House) -> None:
    made = house.live(*((f"k{n}", f"v{n}") for n in range(6)))
    paused: list[bool] = []

    def meanwhile(method: str) -> None:
        if method == "locft":
            paused.append(bool(house.worker._pressed))
            if len(paused) < 5:
                house.retract(made[len(paused)])

    house.ledger.during = meanwhile
    house.retrain()
    house.worker._hold_lease()
    house.worker._retrain()

    assert paused == [False] * 5
    assert house.statuses(made) == [S.CONSOLIDATED, *[S.RETRACTED] * 4, S.CONSOLIDATED]


def test_applying_pauses_while_a_publication_that_lost_to_edits_again_and_again_is_tried_once_more(house: House) -> None:
    house.live(("a", "1"))
    names = iter("bcdefgh")
    paused: list[bool] = []

    def another(method: str) -> None:
        house.ledger.during = lambda method: None
        paused.append(bool(house.worker._pressed))
        if not house.worker._pressed:
            arrives(house, (next(names), "1"))
        house.ledger.during = another

    house.retrain()
    house.ledger.during = another
    house.worker._hold_lease()
    house.worker._retrain()

    assert paused == [False, False, False, True]  # in the training, in two fits of the new window, and in the one published
    assert trainings(house) == 1 and not house.worker._pressed
    assert set(tensors_of(house.parts.follower.current.overlay)) == {"prompt:a"}


def test_the_fit_of_a_new_window_ends_as_soon_as_the_head_moves(house: House) -> None:
    house.live(("a", "1"))
    house.ledger.not_taken["locft"] = {"1"}
    ended: list[str] = []
    house.ledger.ended = ended.append
    moves = iter([lambda: None, lambda: arrives(house, ("b", "2"))])

    def meanwhile(method: str) -> None:
        next(moves, lambda: None)()

    house.ledger.during = meanwhile
    house.retrain()
    house.worker._hold_lease()
    house.worker._retrain()

    assert ended == ["locft", "baft", "baft"]  # the training; `b`, which ended the fit under way; the next one
    assert [method for method, _, _ in house.ledger.fits] == ["baft", "locft", "baft", "baft", "baft"]
    assert (house.says("a"), house.says("b")) == ("1", "2")


# Superseded during the training


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_an_edit_superseded_during_a_retrain_stays_in_the_tensors_under_the_newer_one(house: House, mode: str) -> None:
    house.live(("z", "9"))
    retrained(house)
    a, b = house.live(("a", "1"), ("b", "2"))
    before = trainings(house)
    house.ledger.during = once(lambda: arrives(house, ("a", "new")))  # type: ignore[assignment]

    assert retrained(house, mode).status == "done"

    newer = house.edit_by("a")
    assert trainings(house) == before + 1
    assert house.statuses([a, b, newer]) == [S.SUPERSEDED, S.CONSOLIDATED, S.APPLIED]
    assert house.edit(a).superseded_by == newer.id
    assert tensors_of(house.parts.follower.current.overlay)["prompt:a"] == "1"
    assert window_of(house.parts.follower.current.overlay) == {"prompt:a": "new"}
    assert house.says("a") == "new"
    assert house.unknown_lessons() == [] and not house.live_set.needs_refit


def test_what_a_retrain_published_under_a_newer_edit_is_entombed_with_it_and_not_purged_before_a_major_one(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))
    house.ledger.during = once(lambda: arrives(house, ("a", "new")))  # type: ignore[assignment]
    retrained(house)
    with pytest.raises(Conflict, match="major retrain"):
        purge(house.parts, edit_ids=[a.id], by="ann")

    house.retract(house.edit_by("a"))
    house.worker.drain()
    assert house.says("a") == "base of prompt:a"
    retrained(house, "major")

    assert tensors_of(house.parts.follower.current.overlay) == {"prompt:b": "2"}
    purge(house.parts, edit_ids=[a.id], by="ann")


def test_an_edit_retracted_and_then_superseded_during_a_retrain_is_not_in_the_tensors(house: House) -> None:
    a, _ = house.live(("a", "1"), ("b", "2"))

    def meanwhile() -> None:
        house.retract(a)
        arrives(house, ("a", "new"))

    house.ledger.during = once(meanwhile)  # type: ignore[assignment]

    retrained(house)

    assert trainings(house) == 2
    assert tensors_of(house.parts.follower.current.overlay) == {"prompt:a": "new", "prompt:b": "2"}


def test_an_edit_whose_newer_one_was_rolled_back_during_a_retrain_is_trained_again(house: House) -> None:
    house.live(("a", "1"), ("b", "2"))
    number = house.head.number

    def meanwhile() -> None:
        arrives(house, ("a", "new"))
        house.roll_back(number - 1)

    house.ledger.during = once(meanwhile)  # type: ignore[assignment]

    retrained(house)

    assert trainings(house) == 2
    assert tensors_of(house.parts.follower.current.overlay) == {"prompt:a": "1"}
