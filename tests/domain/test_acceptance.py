"""Which scores acceptance lets through."""

import math
from typing import Any

import pytest

from service.domain.acceptance import AcceptanceLimits, judge_both, judge_losses, judge_scores

LIMITS = AcceptanceLimits(
    near_loss=0.25,
    same_subject_loss=0.5,
    far_fall=0.02,
    far_loss=0.2,
    prose_divergence=0.1,
    retrain_fall=0.1,
    retrain_losses=0.02,
)


def group(kept: float, newly_lost: float | None = None, *, n: int = 100, floor: float | None = 1.0) -> dict[str, Any]:
    return {"kept": kept, "n": n, "floor": floor, "newly_lost": 1.0 - kept if newly_lost is None else newly_lost}


def prose(divergence: float, *, parent: float = 0.0, floor: float | None = 0.0) -> dict[str, Any]:
    return group(0.5) | {"divergence": divergence, "divergence_floor": floor, "parent_divergence": parent}


def accepts(edits: int = 1, *, retrain: bool = False, **groups: dict[str, Any]) -> bool:
    return judge_scores({"locality": groups}, {}, edits=edits, limits=LIMITS, retrain=retrain).is_accepted


def test_each_edit_may_cost_its_share_of_the_far_answers() -> None:
    assert accepts(far=group(0.98))
    assert not accepts(far=group(0.97))
    assert accepts(edits=2, far=group(0.97))


def test_a_retrain_may_cost_the_larger_of_its_own_limit_and_that_of_its_edits() -> None:
    assert accepts(edits=0, retrain=True, far=group(0.90))
    assert not accepts(edits=1, retrain=True, far=group(0.89))
    assert accepts(edits=10, retrain=True, far=group(0.80))
    assert not accepts(edits=1, far=group(0.90))


def test_a_total_over_its_limit_refuses_what_adds_to_it_and_nothing_else() -> None:
    assert not accepts(far=group(0.79, 0.01))
    assert accepts(far=group(0.79, 0.0))


def test_prose_is_judged_by_how_far_its_distribution_has_moved() -> None:
    assert accepts(prose=prose(0.09)) and not accepts(prose=prose(0.11))
    assert accepts(prose=prose(0.11, floor=0.02))
    assert accepts(prose=prose(0.5, parent=0.6))  # this version moves it back
    assert "0.11 nats" in judge_scores({"locality": {"prose": prose(0.11)}}, {}, edits=1, limits=LIMITS).reasons[0]


@pytest.mark.parametrize(("name", "limit"), [("near", 0.25), ("given", 0.25), ("same_subject", 0.5)])
def test_answers_around_an_edit_are_judged_by_what_it_loses_of_them(name: str, limit: float) -> None:
    assert accepts(**{name: group(0.8, limit)})
    assert not accepts(**{name: group(0.8, limit + 0.01)})
    assert accepts(**{name: group(0.0, 1.0, n=3)})  # one answer would decide


@pytest.mark.parametrize("name", ["near", "given"])
def test_many_small_losses_near_edits_are_refused_like_a_large_one(name: str) -> None:
    assert not accepts(**{name: group(0.74, 0.08, n=12)})
    assert accepts(**{name: group(0.74, 0.0, n=12)})  # this edit adds nothing
    assert accepts(same_subject=group(0.1, 0.25, n=4))  # others may have changed these on purpose
    assert not accepts(same_subject=group(0.25, 0.75, n=4))


def test_what_the_base_loses_of_itself_is_no_loss() -> None:
    assert not accepts(near=group(0.7))
    assert accepts(near=group(0.7, floor=0.95))
    assert accepts(far=group(0.97, floor=0.98))


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge_scores({"retention": 0.2}, {}, edits=1, limits=LIMITS).is_accepted


@pytest.mark.parametrize("scores", [{"loss": math.nan}, {"locality": {"prose": {"divergence": math.inf}}}])
def test_a_score_that_is_not_finite_is_refused(scores: dict[str, Any]) -> None:
    assert "not finite" in judge_scores(scores, {}, edits=1, limits=LIMITS).reasons[0]


def test_a_refusal_says_how_much_would_change_and_how_much_may() -> None:
    decision = judge_scores({"locality": {"near": group(0.5, n=12)}}, {}, edits=1, limits=LIMITS)

    assert "50% of 12 answers" in decision.reasons[0] and "25%" in decision.reasons[0]


def test_a_retrain_may_lose_one_edit_or_a_small_share_of_the_live_ones() -> None:
    assert judge_losses(1, 5, LIMITS).is_accepted
    assert judge_losses(2, 100, LIMITS).is_accepted
    assert not judge_losses(3, 100, LIMITS).is_accepted
    assert "2 of 50 edits" in judge_losses(2, 50, LIMITS).reasons[0]


@pytest.mark.parametrize("conceded", [0.0, 0.3])
def test_what_was_conceded_raises_the_totals_and_not_what_an_edit_may_newly_lose(conceded: float) -> None:
    def judge(kept: float, newly_lost: float) -> bool:
        scores, parent = {"locality": {"far": group(kept, newly_lost)}}, {"conceded": {"far_total": conceded}}
        return judge_scores(scores, parent, edits=1, limits=LIMITS).is_accepted

    assert judge(0.81 - conceded, 0.02) and not judge(0.79 - conceded, 0.02)
    assert not judge(0.95, 0.03)


def test_the_limit_of_a_figure_is_the_largest_loss_that_is_accepted() -> None:
    scores = {"locality": {"near": group(0.0), "far": group(0.5, 0.01), "prose": prose(9.0)}}
    figures = judge_scores(scores, {}, edits=1, limits=LIMITS).figures

    assert {name: figure["limit"] for name, figure in figures.items()} == {
        "near": 0.25,
        "near_total": 0.25,
        "far": 0.02,
        "far_total": 0.2,
        "prose": 0.1,
    }
    assert (figures["near"]["value"], figures["far_total"]["value"]) == (1.0, 0.5)


def test_a_refusal_is_about_locality_only_if_no_score_is_broken_and_no_live_edit_lost() -> None:
    harm = {"locality": {"near": group(0.5)}}
    harmful = judge_scores(harm, {}, edits=1, limits=LIMITS)
    broken = judge_scores({**harm, "loss": math.inf}, {}, edits=1, limits=LIMITS)
    losing, fine = judge_losses(9, 10, LIMITS), judge_losses(0, 10, LIMITS)

    assert harmful.is_about_locality and judge_both(harmful, fine).is_about_locality
    assert not broken.is_about_locality and not judge_both(harmful, losing).is_about_locality
    assert judge_both(harmful, losing).figures.keys() == {"near", "near_total", "lost"}
    assert broken.figures == {"loss": {"value": None, "limit": "finite"}}
