"""What a version records of a refusal that was overruled for it."""

from typing import Any

import pytest

from service.domain.acceptance import AcceptanceLimits, Decision, judge_scores
from service.domain.concessions import with_concessions


def measured(before: float, after: float) -> dict[str, Any]:
    """The scores of a version that keeps `after` of the far answers, on top of one that kept `before`."""
    return {"locality": {"far": {"kept": after, "n": 100, "floor": 1.0, "newly_lost": max(0.0, before - after)}}}


def refusal(scores: dict[str, Any]) -> Decision:
    return judge_scores(scores, {}, edits=1, limits=AcceptanceLimits())


def overrule(before: float, after: float, parent: dict[str, Any]) -> dict[str, Any]:
    scores = measured(before, after)
    return with_concessions(scores, parent, refusal(scores))


def test_a_version_says_that_it_was_accepted_anyway_and_what_was_refused() -> None:
    scores = overrule(1.0, 0.6, {})

    assert scores["accepted"] == "anyway"
    assert scores["refused"]["figures"]["far"]["value"] == pytest.approx(0.4)
    assert "40%" in scores["refused"]["reasons"][0]
    assert scores["conceded"] == pytest.approx({"far_total": 0.4})


def test_concessions_add_up_and_later_versions_keep_them_without_the_refusal() -> None:
    first = overrule(1.0, 0.8, {})
    second = overrule(0.8, 0.5, first)

    third = with_concessions(measured(0.5, 0.5), second, None)

    assert second["conceded"] == pytest.approx({"far_total": 0.5})
    assert third == measured(0.5, 0.5) | {"conceded": pytest.approx({"far_total": 0.5})}


def test_a_version_has_conceded_no_more_than_it_has_lost() -> None:
    head = {"conceded": {"far_total": 0.4}}

    assert with_concessions(measured(0.5, 0.9), head, None)["conceded"] == pytest.approx({"far_total": 0.1})
    assert "conceded" not in with_concessions(measured(0.5, 1.0), head, None)
    assert "accepted" not in with_concessions(measured(0.9, 0.9), {}, None)


def test_what_was_not_measured_again_stays_conceded() -> None:
    assert with_concessions({}, {"conceded": {"prose": 0.2}}, None) == {"conceded": {"prose": 0.2}}
