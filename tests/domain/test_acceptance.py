"""Which scores acceptance lets through."""

import math

from service.domain.acceptance import AcceptanceLimits, judge_losses, judge_scores


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
