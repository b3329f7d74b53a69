"""Neutral sentences that hold a name become passages about another subject, the same in every process."""

from functools import cache

from service.editors.named_sentences import passages_about
from service.editors.neutral import NeutralSentences, Sentence
from tests.editors.taught_model import taught_base

TEXTS = (
    "We went to Paris by train and came home late at night",
    "In the evening it rained again and nobody was outside",  # no name within it
    "Yesterday Anna said so",  # too little behind the name
    "They met in the town of Rome where it was always warm and dry",
    "The capital of Spain is larger than any other town there",
)


@cache
def neutral() -> NeutralSentences:
    return NeutralSentences(taught_base(), tuple(Sentence((0, 1), text, (1,)) for text in TEXTS), ())


def test_a_passage_has_the_subject_in_the_place_of_a_name_and_goes_on_for_a_few_words() -> None:
    found = passages_about(neutral(), "Peru", 9)

    whole = sorted(f"{beginning} {rest}" for beginning, rest in found)
    starts = ["The capital of Peru", "They met in the town of Peru", "We went to Peru"]
    assert len(found) == 3 and all(text.startswith(start) for text, start in zip(whole, starts, strict=True))
    assert all("Peru" in beginning and "Peru" not in rest and 4 <= len(rest.split()) <= 8 for beginning, rest in found)


def test_a_passage_is_its_sentence_word_by_word() -> None:
    for beginning, rest in passages_about(neutral(), "Peru", 9):
        said = f"{beginning} {rest}"
        assert any(text.startswith(said.replace("Peru", name)) for text in TEXTS for name in ("Paris", "Rome", "Spain"))


def test_a_sentence_that_is_about_the_edit_is_left_out() -> None:
    found = passages_about(neutral(), "Peru", 9, is_left_out=lambda text: "capital" in text)

    assert len(found) == 2 and all("capital" not in beginning for beginning, _ in found)


def test_each_subject_has_passages_of_its_own_and_always_the_same() -> None:
    many = NeutralSentences(taught_base(), tuple(Sentence((0, 1), f"{TEXTS[0]} {n}", (1,)) for n in range(64)), ())

    assert passages_about(many, "Peru", 4) == passages_about(many.first(64), "Peru", 4)
    assert passages_about(many, "Peru", 4) != [
        (beginning.replace("Chile", "Peru"), rest) for beginning, rest in passages_about(many, "Chile", 4)
    ]
    assert len(passages_about(many, "Peru", 4)) == 4
