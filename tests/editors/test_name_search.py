"""Names are found as whole words, in scripts with word spaces; names that most texts hold are ignored."""

import pytest

from service.editors.examples import make_mention_test
from service.editors.name_search import make_name_finder
from tests.editors.taught_model import item


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
def test_a_name_is_found_as_whole_words(name, text):
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
def test_a_name_is_not_found_inside_other_words(name, text):
    assert not make_name_finder([name])(text)


def test_a_finder_without_names_finds_nothing():
    assert not make_name_finder([])("a text")
    assert not make_name_finder(["", "  "])("a text")


def test_names_can_be_found_in_any_case():
    assert make_name_finder(["Rome"], any_case=True)("what is in ROME?")


def test_names_of_all_lengths_are_found_among_many():
    names = ["Bo", "Bob", "Boba Fett", "Bob Dylan", *(f"Bob {number}" for number in range(100))]
    has_name = make_name_finder(names)

    assert all(has_name(f"about {name}, again") for name in names)
    assert not any(has_name(f"about {name.replace(' ', '')}x, again") for name in names)


@pytest.mark.parametrize("subject", ["is", "e", " ", "\u200b", "?!", "In"])
def test_a_subject_that_most_texts_hold_is_ignored(subject):
    mentions = make_mention_test([item("what is it:", "Z", subject=subject)])

    assert not mentions("e is In the ? ! \u200b text")
    assert mentions("They asked what is it: nobody knew.")  # its prompt is still found


@pytest.mark.parametrize("subject", ["US", "東京", "Bob"])
def test_a_short_subject_that_is_no_everyday_word_is_found(subject):
    mentions = make_mention_test([item("what is it:", "Z", subject=subject)])

    assert mentions(f"about {subject} and us")
    assert not mentions("about us and bobs")


def test_two_capitals_are_ignored_if_case_does_not_matter():
    assert not make_mention_test([item("what is it:", "Z", subject="US")], any_case=True)("tell us more")
