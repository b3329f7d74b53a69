"""Which scores acceptance lets through."""

import math

import pytest

from service.domain.acceptance import AcceptanceLimits, judge_both, judge_losses, judge_scores


def test_acceptance_allows_each_edit_its_share_of_locality() -> None:
    limits = AcceptanceLimits(canary_fall=0.02, canary_floor=0.8)

    assert judge_scores({"canary": 0.98}, {"canary": 1.0}, edits=1, limits=limits).is_accepted
    assert not judge_scores({"canary": 0.97}, {"canary": 1.0}, edits=1, limits=limits).is_accepted
    assert judge_scores({"canary": 0.97}, {"canary": 1.0}, edits=2, limits=limits).is_accepted


def test_a_retrain_may_cost_the_larger_of_its_own_limit_and_that_of_its_edits() -> None:
    limits = AcceptanceLimits(canary_fall=0.02, canary_floor=0.0, retrain_fall=0.1)

    assert judge_scores({"canary": 0.90}, {"canary": 1.0}, edits=0, limits=limits, retrain=True).is_accepted
    assert not judge_scores({"canary": 0.89}, {"canary": 1.0}, edits=1, limits=limits, retrain=True).is_accepted
    assert judge_scores({"canary": 0.80}, {"canary": 1.0}, edits=10, limits=limits, retrain=True).is_accepted
    assert not judge_scores({"canary": 0.90}, {"canary": 1.0}, edits=1, limits=limits).is_accepted


def test_acceptance_keeps_the_floor_but_never_refuses_an_improvement() -> None:
    limits = AcceptanceLimits(canary_fall=0.02, canary_floor=0.8)

    assert not judge_scores({"canary": 0.79}, {"canary": 0.80}, edits=1, limits=limits).is_accepted
    assert judge_scores({"canary": 0.79}, {"canary": 0.70}, edits=1, limits=limits).is_accepted


def test_acceptance_refuses_non_finite_scores_and_reports_the_figures() -> None:
    assert not judge_scores({"loss": math.nan}, {}, edits=1, limits=AcceptanceLimits()).is_accepted
    assert "0.500" in judge_scores({"canary": 0.5}, {}, edits=1, limits=AcceptanceLimits()).reasons[0]


def test_a_retrain_may_lose_one_edit_or_a_small_share_of_the_live_ones() -> None:
    limits = AcceptanceLimits(retrain_losses=0.02)

    assert judge_losses(1, 5, limits).is_accepted
    assert judge_losses(2, 100, limits).is_accepted
    assert not judge_losses(3, 100, limits).is_accepted
    assert "2 of 50 edits" in judge_losses(2, 50, limits).reasons[0]


@pytest.mark.parametrize(("before", "edits"), [(1.0, 1), (0.97, 2), (0.83, 1), (0.5, 1), (0.79, 4)])
@pytest.mark.parametrize("conceded", [{}, {"canary": 0.3}])
def test_the_limit_of_a_figure_is_the_least_value_that_is_accepted(before: float, edits: int, conceded: dict[str, float]) -> None:
    limits, parent = AcceptanceLimits(), {"canary": before, "conceded": conceded}
    limit = judge_scores({"canary": 0.0}, parent, edits=edits, limits=limits).figures["canary"]["limit"]

    assert judge_scores({"canary": limit}, parent, edits=edits, limits=limits).is_accepted
    assert not judge_scores({"canary": limit - 0.001}, parent, edits=edits, limits=limits).is_accepted


def test_what_was_conceded_lowers_the_floor_and_not_the_fall_that_an_edit_may_cost() -> None:
    limits, head = AcceptanceLimits(canary_fall=0.05, canary_floor=0.8), {"canary": 0.55, "conceded": {"canary": 0.4}}

    assert judge_scores({"canary": 0.50}, head, edits=1, limits=limits).is_accepted
    assert not judge_scores({"canary": 0.49}, head, edits=1, limits=limits).is_accepted
    assert not judge_scores({"canary": 0.50}, {"canary": 0.55}, edits=1, limits=limits).is_accepted
    assert not judge_scores({"canary": 0.39}, head | {"canary": 0.41}, edits=1, limits=limits).is_accepted


def test_a_refusal_is_about_locality_only_if_no_score_is_broken_and_no_live_edit_lost() -> None:
    limits = AcceptanceLimits()
    harmful = judge_scores({"canary": 0.5}, {}, edits=1, limits=limits)
    broken = judge_scores({"canary": 0.5, "loss": math.inf}, {}, edits=1, limits=limits)
    losing, fine = judge_losses(9, 10, limits), judge_losses(0, 10, limits)

    assert harmful.is_about_locality and judge_both(harmful, fine).is_about_locality
    assert not broken.is_about_locality and not judge_both(harmful, losing).is_about_locality
    assert judge_both(harmful, losing).figures.keys() == {"canary", "lost"}
    assert broken.figures == {"loss": {"value": None, "limit": "finite"}}
