"""When a retrain is due, how much BaFT may still take, and what the gate lets through."""

import math

import pytest

from service.domain.cadence import Cadence, Standing, full_window_defers, retrain_reason, room
from service.domain.edit import EditStatus
from service.domain.errors import Conflict
from service.domain.gate import GateLimits, decide
from service.domain.transitions import ALLOWED, check, leads_to

RULES = Cadence(soft=3, hard=5, deferred=2, deferred_s=60.0)


@pytest.mark.parametrize(
    ("standing", "is_due"),
    [
        (Standing(window=2, untried=2, deferred=0), False),
        (Standing(window=3, untried=3, deferred=0), True),
        (Standing(window=9, untried=2, deferred=0), False),
        (Standing(window=0, deferred=1), False),
        (Standing(window=0, deferred=2), True),
        (Standing(window=0, deferred=1, oldest_deferred_s=60.0), True),
        (Standing(window=1, deferred=0, taken_back=True), True),
        (Standing(window=9, deferred=9, retrain_underway=True), False),
        (Standing(window=9, deferred=9, retrain_failed=True), False),
    ],
)
def test_a_retrain_is_due(standing: Standing, is_due: bool) -> None:
    assert (retrain_reason(standing, RULES) is not None) is is_due


def test_with_baft_alone_no_retrain_is_due_and_a_full_window_defers() -> None:
    alone = Cadence(soft=3, hard=5, method="baft")
    full = Standing(window=5, untried=5, deferred=0)

    assert retrain_reason(full, alone) is None
    assert full_window_defers(full, alone)
    assert not full_window_defers(full, RULES)


def test_a_window_full_of_what_a_retrain_lost_defers_instead_of_retraining_for_ever() -> None:
    lost = Standing(window=5, untried=0, deferred=0)

    assert retrain_reason(lost, RULES) is None
    assert full_window_defers(lost, RULES)


def test_edits_that_find_the_window_full_are_deferred_if_no_retrain_can_come() -> None:
    assert full_window_defers(Standing(window=5, untried=5, deferred=0, retrain_failed=True), RULES)
    assert not full_window_defers(Standing(window=5, deferred=0, retrain_underway=True), RULES)


def test_room_ends_at_the_hard_limit() -> None:
    assert room(Standing(window=4, deferred=0), RULES) == 1
    assert room(Standing(window=7, deferred=0), RULES) == 0


def test_the_gate_allows_each_edit_its_share_of_locality() -> None:
    limits = GateLimits(canary_fall=0.02, canary_floor=0.8)

    assert decide({"canary": 0.98}, {"canary": 1.0}, edits=1, limits=limits).passes
    assert not decide({"canary": 0.97}, {"canary": 1.0}, edits=1, limits=limits).passes
    assert decide({"canary": 0.97}, {"canary": 1.0}, edits=2, limits=limits).passes


def test_the_gate_holds_the_floor_but_never_refuses_an_improvement() -> None:
    limits = GateLimits(canary_fall=0.02, canary_floor=0.8)

    assert not decide({"canary": 0.79}, {"canary": 0.80}, edits=1, limits=limits).passes
    assert decide({"canary": 0.79}, {"canary": 0.70}, edits=1, limits=limits).passes


def test_the_gate_refuses_what_is_not_finite_and_says_the_figures() -> None:
    assert not decide({"loss": math.nan}, {}, edits=1, limits=GateLimits()).passes
    assert "0.500" in decide({"canary": 0.5}, {}, edits=1, limits=GateLimits()).reasons[0]


def test_nothing_leads_away_from_retracted() -> None:
    assert ALLOWED[EditStatus.RETRACTED] == frozenset()
    with pytest.raises(Conflict):
        check(EditStatus.RETRACTED, EditStatus.QUEUED)


def test_writing_a_status_again_is_allowed() -> None:
    for status in EditStatus:
        check(status, status)
        assert status in leads_to(status)


def test_every_status_has_a_row_in_the_table() -> None:
    assert set(ALLOWED) == set(EditStatus)
