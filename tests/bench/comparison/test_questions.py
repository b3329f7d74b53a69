"""The questions of a mark: bounded, evenly over the measures, and the same for every contender."""

from collections import Counter
from dataclasses import replace

from service.bench.comparison.questions import MEASURES, choose_questions, summarise_measures
from service.bench.ground.scores import ProbeScore
from tests.bench.ground.test_scores import make_edit, probe

EDITS = [
    replace(make_edit(number, f"Land {number}"), locality=tuple(probe("near", f"Near {number} {other}") for other in range(4)))
    for number in range(10)
]  # ten edits, each with one wording and four near probes


def test_every_question_is_asked_where_there_are_few() -> None:
    assert len(choose_questions(EDITS, seed=0)) == 10 * (1 + 1 + 4)


def test_a_bounded_number_is_spread_over_measures_and_edits() -> None:
    chosen = choose_questions(EDITS, seed=0, most=36)

    counts = Counter(question.probe.group for question in chosen)
    assert counts == {"reliability": 10, "other cue": 10, "near": 16}
    assert {question.edit.id for question in chosen if question.probe.group == "near"} == {edit.id for edit in EDITS}


def test_the_seed_alone_draws_them() -> None:
    assert choose_questions(EDITS, seed=1, most=30) == choose_questions(EDITS, seed=1, most=30)
    assert choose_questions(EDITS, seed=1, most=30) != choose_questions(EDITS, seed=2, most=30)


def test_a_fact_that_another_posted_edit_changes_is_no_question() -> None:
    changed = make_edit(11, "Near 0 0")

    asked = choose_questions([*EDITS, changed], seed=0)

    assert "Near 0 0" not in {question.probe.subject for question in asked if question.probe.group == "near"}


def test_a_mark_has_a_figure_for_each_measure() -> None:
    figures = summarise_measures(
        [ProbeScore("one", "reliability", True, False, 0.9), ProbeScore("one", "slip", False, True, 0.9)]
    )

    assert tuple(figures) == MEASURES
    assert (figures["kept"]["score"], figures["wordings"]["score"], figures["far"]["score"]) == (1.0, 0.0, None)
