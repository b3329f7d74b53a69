"""A retrain and its publication beside edits and retractions: which waits for which."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.background.purge import purge
from service.domain.edit import EditStatus
from service.domain.errors import Conflict
from service.lifecycle.context import EditFitsIdle
from service.lifecycle.settings import LifecycleSettings
from tests.lifecycle.ledger import tensors_of, window_of
from tests.lifecycle.local_service import MANUAL, LocalService, count_trainings, new_local_service, once, retrained

S = EditStatus


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path, settings=LifecycleSettings(cadence=MANUAL))
    yield made
    made.close()


def post_and_apply(local: LocalService, *facts: tuple[str, str]) -> None:
    """Edits that are applied one by one beside a retrain."""
    for fact in facts:
        local.post(fact)
        while local.worker._advance():
            pass


# Who goes first


def test_a_retrain_waits_for_fits_of_edits_of_retractions_and_of_its_own_new_window(local: LocalService) -> None:
    a, b = local.live(("a", "1"), ("b", "2"))
    seen: list[tuple[str, bool]] = []
    local.ledger.during_fit = lambda method: seen.append((method, local.context.edit_fits_idle.is_set()))

    local.retract(a)
    local.live(("c", "3"))
    local.ledger.not_taken["locft"] = {"2"}
    retrained(local)

    assert seen == [("baft", False), ("baft", False), ("locft", True), ("baft", False)]
    assert local.context.edit_fits_idle.is_set()
    assert local.statuses([b]) == [S.APPLIED]


def test_a_retrain_continues_when_the_last_of_two_fits_ends() -> None:
    no_fits = EditFitsIdle()
    with no_fits.busy():
        other = threading.Event()

        def fit() -> None:
            with no_fits.busy():
                other.set()

        thread = threading.Thread(target=fit)
        thread.start()
        thread.join()
        assert other.is_set() and not no_fits.is_set()

    assert no_fits.is_set()


def test_a_fit_that_breaks_lets_a_retrain_go_on() -> None:
    no_fits = EditFitsIdle()

    with pytest.raises(ValueError), no_fits.busy():
        raise ValueError

    assert no_fits.is_set()


# Applying pauses for a publication only


def test_edits_are_applied_during_every_training_of_a_retrain(local: LocalService) -> None:
    made = local.live(*((f"k{n}", f"v{n}") for n in range(6)))
    paused: list[bool] = []

    def meanwhile(method: str) -> None:
        if method == "locft":
            paused.append(bool(local.worker._apply_pause))
            if len(paused) < 5:
                local.retract(made[len(paused)])

    local.ledger.during_fit = meanwhile
    local.retrain()
    local.worker._hold_lease()
    local.worker._retrain()

    assert paused == [False] * 5
    assert local.statuses(made) == [S.CONSOLIDATED, *[S.RETRACTED] * 4, S.CONSOLIDATED]


def test_applying_pauses_after_too_many_lost_publications_of_a_retrain(local: LocalService) -> None:
    local.live(("a", "1"))
    names = iter("bcdefgh")
    paused: list[bool] = []

    def another(method: str) -> None:
        local.ledger.during_fit = lambda method: None
        paused.append(bool(local.worker._apply_pause))
        if not local.worker._apply_pause:
            post_and_apply(local, (next(names), "1"))
        local.ledger.during_fit = another

    local.retrain()
    local.ledger.during_fit = another
    local.worker._hold_lease()
    local.worker._retrain()

    assert paused == [False, False, False, True]  # in the training, in two fits of the new window, and in the one published
    assert count_trainings(local) == 1 and not local.worker._apply_pause
    assert set(tensors_of(local.context.follower.current.overlay)) == {"prompt:a"}


def test_the_fit_of_a_new_window_ends_as_soon_as_the_head_moves(local: LocalService) -> None:
    local.live(("a", "1"))
    local.ledger.not_taken["locft"] = {"1"}
    ended: list[str] = []
    local.ledger.after_fit = ended.append
    moves = iter([lambda: None, lambda: post_and_apply(local, ("b", "2"))])

    def meanwhile(method: str) -> None:
        next(moves, lambda: None)()

    local.ledger.during_fit = meanwhile
    local.retrain()
    local.worker._hold_lease()
    local.worker._retrain()

    assert ended == ["locft", "baft", "baft"]  # the training; `b`, which ended the fit under way; the next one
    assert [method for method, _, _ in local.ledger.fits] == ["baft", "locft", "baft", "baft", "baft"]
    assert (local.says("a"), local.says("b")) == ("1", "2")


# Superseded during the training


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_an_edit_superseded_during_a_retrain_stays_in_the_tensors_under_its_successor(local: LocalService, mode: str) -> None:
    local.live(("z", "9"))
    retrained(local)
    a, b = local.live(("a", "1"), ("b", "2"))
    before = count_trainings(local)
    local.ledger.during_fit = once(lambda: post_and_apply(local, ("a", "new")))  # type: ignore[assignment]

    assert retrained(local, mode).status == "done"

    newer = local.edit_by("a")
    assert count_trainings(local) == before + 1
    assert local.statuses([a, b, newer]) == [S.SUPERSEDED, S.CONSOLIDATED, S.APPLIED]
    assert local.edit(a).superseded_by == newer.id
    assert tensors_of(local.context.follower.current.overlay)["prompt:a"] == "1"
    assert window_of(local.context.follower.current.overlay) == {"prompt:a": "new"}
    assert local.says("a") == "new"
    assert local.unknown_lessons() == [] and not local.live_set.needs_refit


def test_an_edit_superseded_during_a_retrain_leaves_the_tensors_by_a_major_one(
    local: LocalService,
) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))
    local.ledger.during_fit = once(lambda: post_and_apply(local, ("a", "new")))  # type: ignore[assignment]
    retrained(local)
    with pytest.raises(Conflict, match="major retrain"):
        purge(local.context, edit_ids=[a.id], by="ann", exports=local.exports)

    local.retract(local.edit_by("a"))
    local.worker.drain()
    assert local.says("a") == "base of prompt:a"
    retrained(local, "major")

    assert tensors_of(local.context.follower.current.overlay) == {"prompt:b": "2"}
    purge(local.context, edit_ids=[a.id], by="ann", exports=local.exports)


def test_an_edit_retracted_and_then_superseded_during_a_retrain_is_not_in_the_tensors(local: LocalService) -> None:
    a, _ = local.live(("a", "1"), ("b", "2"))

    def meanwhile() -> None:
        local.retract(a)
        post_and_apply(local, ("a", "new"))

    local.ledger.during_fit = once(meanwhile)  # type: ignore[assignment]

    retrained(local)

    assert count_trainings(local) == 2
    assert tensors_of(local.context.follower.current.overlay) == {"prompt:a": "new", "prompt:b": "2"}


def test_an_edit_whose_successor_is_rolled_back_during_a_retrain_is_trained(local: LocalService) -> None:
    local.live(("a", "1"), ("b", "2"))
    number = local.head.number

    def meanwhile() -> None:
        post_and_apply(local, ("a", "new"))
        local.roll_back(number - 1)

    local.ledger.during_fit = once(meanwhile)  # type: ignore[assignment]

    retrained(local)

    assert count_trainings(local) == 2
    assert tensors_of(local.context.follower.current.overlay) == {"prompt:a": "1"}
