"""Which edit a plain retrieval puts before a question."""

from dataclasses import replace

from service.bench.comparison.nearest import NearestEdit
from service.bench.ground.asking import Ask
from tests.bench.ground.test_scores import make_edit

FRANCE, SPAIN = make_edit(1, "France"), make_edit(2, "Spain")
CURRENCY = replace(make_edit(3, "France"), relation="currency", ask=Ask("The currency of France is the"))
UNNAMED = replace(make_edit(4, "Peru"), names_subject=False)


def test_an_edit_is_found_by_the_name_of_its_subject_in_any_turn() -> None:
    nearest = NearestEdit([FRANCE, SPAIN])

    assert nearest.find(Ask("Who governs Spain?")) == SPAIN
    assert nearest.find(Ask("What is its capital?", "chat", (("Let us talk about France.", "Yes?"),))) == FRANCE


def test_of_the_edits_of_one_subject_the_one_with_the_words_of_the_question_is_found() -> None:
    nearest = NearestEdit([FRANCE, CURRENCY])

    assert nearest.find(Ask("Which currency has France?")) == CURRENCY
    assert nearest.find(Ask("Name the capital of France.")) == FRANCE


def test_an_edit_that_was_posted_without_its_subject_is_found_by_its_words_alone() -> None:
    nearest = NearestEdit([FRANCE, UNNAMED])

    assert nearest.find(Ask("Q: The capital of Peru is")) == UNNAMED
    assert nearest.find(Ask("Peru lies in")) is None


def test_a_question_without_enough_in_common_finds_nothing() -> None:
    nearest = NearestEdit([FRANCE, SPAIN, CURRENCY])

    assert nearest.find(Ask("The language of most people here is an old one")) is None
    assert nearest.find(Ask("Water boils at")) is None
    assert NearestEdit([]).find(Ask("The capital of France is")) is None
