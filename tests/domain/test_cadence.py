"""When a retrain is due, of which kind, and how many edits the window may still take."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.cadence import (
    Cadence,
    CadenceInputs,
    DueRetrain,
    Mode,
    Strategy,
    choose_mode,
    find_due_retrain,
    free_window_places,
    is_full_window_deferring,
    retry_pause_s,
)

RULES = Cadence(soft=3, hard=5, deferred=2, deferred_s=60.0)


@pytest.mark.parametrize(
    ("inputs", "is_due"),
    [
        (CadenceInputs(window=2, untried=2, deferred=0), False),
        (CadenceInputs(window=3, untried=3, deferred=0), True),
        (CadenceInputs(window=4, untried=2, deferred=0), False),
        (CadenceInputs(window=5, untried=1, deferred=0), True),
        (CadenceInputs(window=5, untried=0, deferred=0), False),
        (CadenceInputs(window=0, deferred=1), False),
        (CadenceInputs(window=0, deferred=2), True),
        (CadenceInputs(window=0, deferred=1, oldest_deferred_s=60.0), True),
        (CadenceInputs(window=1, deferred=0, has_retracted_in_tensors=True), True),
        (CadenceInputs(window=9, deferred=9, is_retrain_active=True), False),
        (CadenceInputs(window=9, deferred=9, setbacks=1), False),
    ],
)
def test_a_retrain_is_due(inputs: CadenceInputs, is_due: bool) -> None:
    assert (find_due_retrain(inputs, RULES) is not None) is is_due


def test_with_baft_alone_no_retrain_is_due_and_a_full_window_defers() -> None:
    alone = Cadence(soft=3, hard=5, automatic=False)
    full = CadenceInputs(window=5, untried=5, deferred=0)

    assert find_due_retrain(full, alone) is None
    assert is_full_window_deferring(full, alone)
    assert not is_full_window_deferring(full, RULES)


def test_a_window_full_of_edits_that_a_retrain_lost_defers_new_edits() -> None:
    lost = CadenceInputs(window=5, untried=0, deferred=0)

    assert find_due_retrain(lost, RULES) is None
    assert is_full_window_deferring(lost, RULES)


def test_a_full_window_defers_edits_if_no_retrain_can_come() -> None:
    assert is_full_window_deferring(CadenceInputs(window=5, untried=5, deferred=0, setbacks=1), RULES)
    assert not is_full_window_deferring(CadenceInputs(window=5, deferred=0, is_retrain_active=True), RULES)


def test_free_window_places_end_at_the_hard_limit() -> None:
    assert free_window_places(CadenceInputs(window=4, deferred=0), RULES) == 1
    assert free_window_places(CadenceInputs(window=7, deferred=0), RULES) == 0


BASE = CadenceInputs(
    window=1, untried=4, deferred=0, has_tensors=True, minors=1, locality_at_retrain=0.95, locality_at_major=0.97
)
ROOMY = Cadence(soft=100, hard=200, deferred=100)


@pytest.mark.parametrize(
    ("change", "mode", "reason"),
    [
        ({"untried": 100}, "minor", "100 edits that are in no tensors"),
        ({"untried": 100, "has_tensors": False}, "major", "100 edits"),
        ({"untried": 100, "minors": 4}, "major", "100 edits"),
        ({"untried": 100, "locality_at_retrain": 0.92}, "major", "100 edits"),
        ({"window": 200}, "minor", "the window is full"),
        ({"deferred": 100}, "minor", "100 edits are deferred"),
        ({"deferred": 1, "oldest_deferred_s": 300.0}, "minor", "a deferred edit has waited"),
        ({"oldest_untried_s": 21_600.0}, "minor", "in the window long enough"),
        ({"has_retracted_in_tensors": True}, "major", "a retracted edit"),
        ({"since_major_s": 86_400.0}, "major", "long enough ago"),
        ({"retention": 0.97}, "minor", "answers 0.970 of its live edits"),
        ({"retention": 0.97, "untried": 3}, "major", "answers 0.970"),
        ({"locality": 0.85}, "minor", "from 0.950 to 0.850"),
        ({"capability": 0.94}, "minor", "capability is 0.940"),
        ({"untried": 0, "locality_at_retrain": 0.92}, "major", "from 0.970 to 0.920"),
    ],
)
def test_each_thing_that_makes_a_retrain_due_says_which_and_why(change: dict[str, Any], mode: Mode, reason: str) -> None:
    found = find_due_retrain(replace(BASE, **change), ROOMY)

    assert found is not None and found.mode == mode
    assert reason in found.reason


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"retention": 0.98, "locality": 0.86, "capability": 0.95},
        {"oldest_untried_s": 21_599.0},
        {"since_major_s": 86_399.0},
        {"since_major_s": 86_400.0, "untried": 0, "minors": 0},
        {"retention": 0.5, "untried": 3, "minors": 0},
        {"retention": 0.5, "capability": 0.1, "locality": 0.1, "untried": 0, "minors": 0},
        {"retention": 0.90, "retention_at_retrain": 0.90},
        {"locality": 0.5, "locality_at_retrain": None},
        {"retention": 0.5, "setbacks": 1, "since_setback_s": 59.0},
    ],
)
def test_no_retrain_is_due_for_an_equal_result_or_an_unknown_figure(change: dict[str, Any]) -> None:
    assert find_due_retrain(replace(BASE, **change), ROOMY) is None


@pytest.mark.parametrize("strategy", ["realtime", "buffered"])
def test_the_strategies_of_the_paper_always_train_from_the_base(strategy: Strategy) -> None:
    rules = Cadence(strategy=strategy, deferred=1)

    assert find_due_retrain(CadenceInputs(window=0, deferred=1, has_tensors=True), rules) == DueRetrain(
        "major", "an edit is deferred"
    )
    assert choose_mode(CadenceInputs(window=0, deferred=0, has_tensors=True), rules) == "major"


def test_the_pause_after_retrains_without_publication_doubles_up_to_a_bound() -> None:
    rules = Cadence(retry_s=60.0, age_s=1_000.0)

    assert [retry_pause_s(setbacks, rules) for setbacks in (0, 1, 2, 3, 5, 6)] == [0.0, 60.0, 120.0, 240.0, 960.0, 1_000.0]
    assert retry_pause_s(10_000, rules) == 1_000.0
    assert retry_pause_s(9, Cadence(retry_s=60.0, age_s=5.0)) == 60.0


@pytest.mark.parametrize(
    "change",
    [
        {"has_retracted_in_tensors": True},
        {"deferred": 100},
        {"deferred": 1, "oldest_deferred_s": 300.0},
        {"untried": 100},
        {"oldest_untried_s": 21_600.0},
        {"capability": 0.5},
    ],
)
@pytest.mark.parametrize(("setbacks", "pause"), [(1, 60.0), (2, 120.0)])
def test_a_reason_makes_a_retrain_due_again_once_the_pause_is_over(change: dict[str, Any], setbacks: int, pause: float) -> None:
    failed = replace(BASE, setbacks=setbacks, since_setback_s=pause - 1, **change)

    assert find_due_retrain(failed, ROOMY) is None
    found = find_due_retrain(replace(failed, since_setback_s=pause), ROOMY)
    assert found is not None and found.reason.endswith(f"published nothing: {setbacks}")


def test_new_edits_do_not_shorten_the_pause_after_a_refused_retrain() -> None:
    assert find_due_retrain(replace(BASE, untried=1_000, new_edits=1_000, setbacks=1, since_setback_s=59.0), ROOMY) is None


def test_a_cancelled_retrain_is_due_again_only_for_new_edits_or_a_retraction() -> None:
    cancelled = replace(BASE, untried=100, setbacks=1, is_last_cancelled=True, since_setback_s=60.0)

    assert find_due_retrain(cancelled, ROOMY) is None
    assert find_due_retrain(replace(cancelled, new_edits=4), ROOMY) is not None
    assert find_due_retrain(replace(cancelled, has_retracted_in_tensors=True), ROOMY) is not None
    assert find_due_retrain(replace(cancelled, new_edits=4, has_retracted_in_tensors=True, since_setback_s=59.0), ROOMY) is None
