"""When a deferred edit is tried next: what is said agrees with when the cadence makes a retrain due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.cadence import Cadence, CadenceInputs, find_due_retrain
from service.domain.next_try import find_next_try

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RULES = Cadence(soft=10, hard=20, deferred=3, deferred_s=300.0, retry_s=60.0)
ONE = CadenceInputs(window=2, untried=2, deferred=1, oldest_deferred_s=100.0)


def later(inputs: CadenceInputs, seconds: float) -> CadenceInputs:
    """The same store after some time in which nothing happened."""
    ages = ("oldest_deferred_s", "oldest_untried_s", "since_setback_s")
    return replace(inputs, **{name: getattr(inputs, name) + seconds for name in ages})


@pytest.mark.parametrize(
    ("change", "when", "edits", "words"),
    [
        ({"is_retrain_active": True}, "under_way", None, "queued or running tries it"),
        ({}, "by_time", 2, "sooner if 2 more edits are deferred"),
        ({"deferred": 2}, "by_time", 1, "sooner if one more edit is deferred"),
        ({"deferred": 3}, "due", None, "a retrain is due"),
        ({"oldest_deferred_s": 300.0}, "due", None, "a retrain is due"),
        ({"untried": 10}, "due", None, "a retrain is due"),
        ({"has_retracted_in_tensors": True}, "due", None, "a retrain is due"),
        ({"deferred": 3, "setbacks": 2, "since_setback_s": 20.0}, "by_time", None, "published nothing: 2"),
        ({"setbacks": 1, "since_setback_s": 20.0}, "by_time", None, "published nothing: 1"),
        ({"setbacks": 1, "since_setback_s": 90.0}, "by_time", 2, "at the latest"),
        (
            {"setbacks": 1, "since_setback_s": 90.0, "is_last_cancelled": True, "new_edits": 1},
            "after_edits",
            3,
            "before 3 more edits are posted",
        ),
        ({"setbacks": 1, "since_setback_s": 90.0, "is_last_cancelled": True, "new_edits": 4}, "by_time", 2, "at the latest"),
    ],
)
def test_each_rule_of_the_cadence_has_its_next_try(change: dict[str, Any], when: str, edits: int | None, words: str) -> None:
    found = find_next_try(replace(ONE, **change), RULES, now=NOW)

    assert (found.when, found.edits) == (when, edits)
    assert words in found.sentence


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"oldest_deferred_s": 0.0},
        {"deferred": 3, "setbacks": 2, "since_setback_s": 20.0},
        {"setbacks": 1, "since_setback_s": 20.0},
        {"setbacks": 3, "since_setback_s": 1.0, "oldest_deferred_s": 299.0},
        {"setbacks": 1, "since_setback_s": 0.0, "has_retracted_in_tensors": True, "is_last_cancelled": True},
    ],
)
def test_the_moment_said_is_the_one_at_which_a_retrain_is_due_and_none_before(change: dict[str, Any]) -> None:
    inputs = replace(ONE, **change)

    at = find_next_try(inputs, RULES, now=NOW).at

    assert at is not None
    assert find_due_retrain(later(inputs, (at - NOW).total_seconds()), RULES) is not None
    assert find_due_retrain(later(inputs, (at - NOW).total_seconds() - 1.0), RULES) is None


def test_so_many_more_deferred_edits_as_said_make_a_retrain_due_and_one_fewer_do_not() -> None:
    edits = find_next_try(ONE, RULES, now=NOW).edits

    assert edits is not None
    assert find_due_retrain(replace(ONE, deferred=ONE.deferred + edits), RULES) is not None
    assert find_due_retrain(replace(ONE, deferred=ONE.deferred + edits - 1), RULES) is None


def test_without_automatic_retrains_a_deferred_edit_waits_for_a_request() -> None:
    found = find_next_try(replace(ONE, deferred=50), replace(RULES, automatic=False), now=NOW)

    assert (found.when, found.at, found.edits) == ("on_request", None, None)


def test_a_retrain_that_began_without_the_edit_does_not_try_it() -> None:
    found = find_next_try(replace(ONE, is_retrain_active=True), RULES, now=NOW, is_left_out=True)

    assert found.when == "after_retrain"


def test_a_moment_beyond_every_calendar_is_not_named() -> None:
    found = find_next_try(ONE, replace(RULES, deferred_s=1e15), now=NOW)

    assert (found.when, found.at) == ("by_time", None)
    assert find_next_try(ONE, replace(RULES, deferred_s=1e8), now=NOW).at == NOW + timedelta(seconds=1e8 - 100.0)
