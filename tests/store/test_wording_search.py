"""Which texts speak of a wording."""

import pytest

from service.store.wording_search import Match, Wordings

WORDING = "The capital of Australia is"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (WORDING, Match.YES),
        ("Tell me:  the CAPITAL of\nAustralia is?", Match.YES),
        ("the capital of “Australia” is ...", Match.YES),
        ("The capital of Australia isn", Match.NO),
        ("The capital of Austria is", Match.NO),
        ("The capital of Australia", Match.NO),
        ("", Match.NO),
    ],
)
def test_a_wording_matches_by_its_words_in_order(text: str, match: Match) -> None:
    assert Wordings([WORDING, "unrelated"]).match(text) is match


def test_a_short_wording_matches_alone_and_is_uncertain_among_other_words() -> None:
    short = Wordings(["Tuvalu", "the king"])

    assert short.match(" tuvalu? ") is Match.YES
    assert short.match("Where is Tuvalu?") is Match.PERHAPS
    assert short.match("Who is the king") is Match.PERHAPS
    assert short.match("Tuvaluans") is Match.NO


def test_a_long_wording_is_found_beside_a_short_one_that_begins_alike() -> None:
    assert Wordings(["The capital", WORDING]).match(f"Oh, {WORDING} what?") is Match.YES


def test_without_spaces_between_words_each_character_is_one() -> None:
    assert Wordings(["澳大利亚的首都"]).match("请问澳大利亚的首都是哪里") is Match.YES
    assert Wordings(["首都"]).match("请问澳大利亚的首都是哪里") is Match.PERHAPS


def test_a_text_without_words_matches_nothing() -> None:
    assert Wordings(["%", " ", ""]).match("100% _") is Match.NO
