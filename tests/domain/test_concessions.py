"""What a version records of a refusal that was overruled for it."""

import pytest

from service.domain.acceptance import AcceptanceLimits, Decision, judge_scores
from service.domain.concessions import with_concessions


def refusal(before: float, after: float) -> Decision:
    return judge_scores({"canary": after}, {"canary": before}, edits=1, limits=AcceptanceLimits())


def test_a_version_says_that_it_was_accepted_anyway_and_what_was_refused() -> None:
    scores = with_concessions({"canary": 0.6}, {"canary": 1.0}, refusal(1.0, 0.6))

    assert scores["accepted"] == "anyway"
    assert scores["refused"]["figures"]["canary"]["value"] == 0.6
    assert "0.600" in scores["refused"]["reasons"][0]
    assert scores["conceded"] == pytest.approx({"canary": 0.4})


def test_concessions_add_up_and_later_versions_keep_them_without_the_refusal() -> None:
    first = with_concessions({"canary": 0.8}, {"canary": 1.0}, refusal(1.0, 0.8))
    second = with_concessions({"canary": 0.5}, first, refusal(0.8, 0.5))

    third = with_concessions({"canary": 0.5}, second, None)

    assert second["conceded"] == pytest.approx({"canary": 0.5})
    assert third == {"canary": 0.5, "conceded": pytest.approx({"canary": 0.5})}


def test_a_version_has_conceded_no_more_than_it_has_lost() -> None:
    head = {"canary": 0.5, "conceded": {"canary": 0.4}}

    assert with_concessions({"canary": 0.9}, head, None)["conceded"] == pytest.approx({"canary": 0.1})
    assert "conceded" not in with_concessions({"canary": 1.0}, head, None)
    assert "accepted" not in with_concessions({"canary": 0.9}, {"canary": 0.9}, None)
