"""Figures from outcomes: each with its n, and apart what must not be mixed."""

from typing import Any

from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import EvalQuestion, Kind
from service.evaluation.report import build_edit_report, build_report


def outcome(kind: Kind, right: bool, *, tokens: float = 0.5, base: bool = False, **marks: Any) -> Outcome:
    ask = EvalQuestion(record=marks.pop("record", "a"), kind=kind, prompt="p", answer="x", surface="raw", **marks)
    return Outcome(question=ask, greedy=right, tokens=tokens, base_greedy=base, base_tokens=float(base))


def test_a_report_without_questions_has_no_score() -> None:
    greedy = build_report([outcome("reliability", True)])["greedy"]

    assert greedy["portability"] == {"score": None, "n": 0, "groups": {}}


def test_scores_count_the_edits_and_the_questions() -> None:
    result = build_report([outcome("reliability", True), outcome("reliability", False, record="b"), outcome("generality", True)])

    assert result["edits"] == 2
    assert result["greedy"]["reliability"] == {"score": 0.5, "n": 2}


def test_greedy_answers_and_token_accuracy_are_reported_apart() -> None:
    result = build_report([outcome("reliability", False, tokens=0.75)])

    assert result["greedy"]["reliability"]["score"] == 0.0
    assert result["tokens"]["reliability"]["score"] == 0.75


def test_the_base_model_is_scored_on_the_same_questions() -> None:
    result = build_report([outcome("reliability", True, base=False), outcome("locality", False, base=True)])

    assert result["base"]["greedy"]["reliability"] == {"score": 0.0, "n": 1}
    assert result["base"]["greedy"]["locality"] == {"score": 1.0, "n": 1}


def test_trained_rephrases_do_not_raise_the_score_of_untrained_ones() -> None:
    greedy = build_report([outcome("generality", True, trained=True), outcome("generality", False)])["greedy"]

    assert greedy["generality"]["trained"] == {"score": 1.0, "n": 1}
    assert greedy["generality"]["untrained"] == {"score": 0.0, "n": 1}


def test_locality_is_reported_inside_and_outside_the_pool_and_by_group() -> None:
    result = [
        outcome("locality", True, pool=True, group="near"),
        outcome("locality", False, pool=False, group="near"),
        outcome("locality", True, group="far"),
    ]

    locality = build_report(result)["greedy"]["locality"]

    assert (locality["inside"]["n"], locality["outside"]["n"]) == (1, 1)  # the third does not say
    assert (locality["inside"]["score"], locality["outside"]["score"]) == (1.0, 0.0)
    assert locality["groups"] == {"far": {"score": 1.0, "n": 1}, "near": {"score": 0.5, "n": 2}}


def test_the_verdict_on_an_edit_without_generality_is_literal_only() -> None:
    literal = [outcome("reliability", True), outcome("generality", False), outcome("generality", True, trained=True)]
    general = [outcome("reliability", True), outcome("generality", True), outcome("generality", False)]
    untested = [outcome("reliability", True)]

    assert [build_edit_report(result)["generality"] for result in (literal, general, untested)] == [
        "literal only",
        "general",
        "untested",
    ]


def test_without_untrained_rephrases_trained_ones_decide_generality() -> None:
    result = [outcome("reliability", True), outcome("generality", True, trained=True)]

    assert build_edit_report(result)["generality"] == "general"


def test_a_report_has_its_moment_and_what_was_left_out_if_given() -> None:
    result = build_report([], moment="after_edit", left_out={"contradicted": 3})

    assert (result["moment"], result["left_out"]) == ("after_edit", {"contradicted": 3})
    assert not {"moment", "left_out"} & set(build_report([]))
