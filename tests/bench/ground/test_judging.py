"""When an answer counts as right."""

import pytest

from service.bench.ground.judging import first_clause, says


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        (" Paris.\nThe capital of Spain is Madrid.", "Paris"),
        ("Paris! And more", "Paris"),
        ("St. Petersburg. It is large.", "St. Petersburg"),
        ("written by J. R. R. Tolkien. It is long.", "written by J. R. R. Tolkien"),
        (".fr and so on", ".fr and so on"),
        ("", ""),
    ],
)
def test_a_clause_ends_at_a_line_break_or_at_the_end_of_a_sentence(text: str, clause: str) -> None:
    assert first_clause(text) == clause


def test_an_answer_counts_only_in_the_first_clause() -> None:
    assert says("The capital is Paris.", "Paris")
    assert not says("I do not know. Paris.", "Paris")


def test_an_answer_is_found_as_whole_words_whatever_its_accents_and_case() -> None:
    assert says("it is bogotá", "Bogota")
    assert not says("Parisian food", "Paris")
    assert not says("17", "7")


def test_the_case_of_a_short_answer_counts() -> None:
    assert says("Its symbol is He", "He")
    assert not says("he is", "He")


def test_an_answer_behind_its_rival_is_not_what_the_model_says() -> None:
    assert not says("Paris, and not Lyon", "Lyon", rival="Paris")
    assert says("Lyon, and not Paris", "Lyon", rival="Paris")


def test_a_rival_that_is_part_of_the_answer_does_not_count_against_it() -> None:
    assert says("Mexico City", "Mexico City", rival="Mexico")


def test_an_answer_that_is_a_sentence_is_found_without_its_end() -> None:
    assert (
        says("I don't know.", "I don't know.")
        and says("I don’t know. It is", "I don't know.")
        and says("Who knows?", "Who knows?")
    )
    assert says("the U.S. is it", "U.S.") and not says("I don't know", "I don't know it.")
    assert not says("What?", "?")
