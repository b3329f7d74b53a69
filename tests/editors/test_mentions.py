"""Names are found in texts as words, in the scripts that have such; what every text holds names nothing."""

import pytest

from service.editors.examples import speaks_against
from service.editors.mentions import make_name_finder
from tests.editors.lessons import item


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Rome", "Rome"),
        ("Rome", "It is Rome's oldest."),
        ("Rome", "from Rome-Fiumicino"),
        ("X (country)", "They went to X (country) again."),
        ("red is", "we say red  is\nnice"),
        ("New\u00a0York", "in New York"),
        ("Cafe\u0301 Noir", "the Caf\u00e9 Noir"),
        ("東京", "彼は東京都に住んでいる"),
        ("한국", "한국은 아시아에 있다"),
        ("ไทย", "ประเทศไทยอยู่ในเอเชีย"),
        ("Αθήνα", "στην Αθήνα."),
    ],
)
def test_a_name_is_found_where_it_stands_as_words(name, text):
    assert make_name_finder([name])(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Iran", "The Iranian embassy"),
        ("Iran", "in Tehiran"),
        ("Iran", "iran in small letters"),
        ("land", "Ireland and landing"),
        ("हिन", "हिन्दी में"),
        ("Rome", ""),
        ("X (country)", "X (count"),
    ],
)
def test_letters_of_other_words_are_no_name(name, text):
    assert not make_name_finder([name])(text)


def test_no_name_is_found_in_any_text():
    assert not make_name_finder([])("a text")
    assert not make_name_finder(["", "  "])("a text")


def test_case_may_not_matter():
    assert make_name_finder(["Rome"], any_case=True)("what is in ROME?")


def test_names_of_all_lengths_are_found_among_many():
    names = ["Bo", "Bob", "Boba Fett", "Bob Dylan", *(f"Bob {number}" for number in range(100))]
    holds = make_name_finder(names)

    assert all(holds(f"about {name}, again") for name in names)
    assert not any(holds(f"about {name.replace(' ', '')}x, again") for name in names)


@pytest.mark.parametrize("subject", ["is", "e", " ", "\u200b", "?!", "In"])
def test_a_subject_that_most_texts_hold_names_nothing(subject):
    against = speaks_against([item("what is it:", "Z", subject=subject)])

    assert not against("e is In the ? ! \u200b text")
    assert against("They asked what is it: nobody knew.")  # by its prompt it can still be told


@pytest.mark.parametrize("subject", ["US", "東京", "Bob"])
def test_a_short_subject_that_is_no_everyday_word_names_something(subject):
    against = speaks_against([item("what is it:", "Z", subject=subject)])

    assert against(f"about {subject} and us")
    assert not against("about us and bobs")


def test_two_capitals_are_an_everyday_word_where_case_does_not_matter():
    assert not speaks_against([item("what is it:", "Z", subject="US")], any_case=True)("tell us more")
