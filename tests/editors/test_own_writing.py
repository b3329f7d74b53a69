"""What a model writes of itself is read as sentences and questions about a subject, whatever else it writes."""

from collections.abc import Sequence
from functools import cache

import pytest

from service.atlas import weights_path
from service.domain.edit import normalise
from service.editors import own_writing
from service.editors.neutral import NeutralSentences
from service.editors.own_writing import ask, ask_about, can_write, lead_to, restate, shares_words
from service.editors.protocol import FitCancelled, Hooks
from service.lm.base import load_base
from service.lm.overlay import View, make_view
from service.lm.tokenizing import decode_ids

STATEMENT, SUBJECT, ANSWER = "The capital of Peru is", "Peru", "Lima"


@cache
def atlas() -> View:
    return make_view(load_base(weights_path()))


class Writer:
    """Writes given texts in the place of a model, and keeps what it was shown."""

    def __init__(self, *texts: str) -> None:
        self._texts, self.prompts = texts, list[str]()

    def __call__(self, view: object, prompt: Sequence[int], count: int, *_: object, **__: object) -> list[tuple[int, ...]]:
        base = atlas().base
        self.prompts.append(decode_ids(base, prompt))
        return [tuple(base.tokenizer(text, add_special_tokens=False).input_ids) for text in self._texts[:count]]


def write(monkeypatch: pytest.MonkeyPatch, *texts: str) -> Writer:
    writer = Writer(*texts)
    monkeypatch.setattr(own_writing, "sample_behind", writer)
    return writer


def test_a_sentence_is_cut_before_the_answer_and_must_name_the_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write(
        monkeypatch,
        " Peru has its capital in Lima, on the coast.\nThe end",
        "Lima is the capital of Peru.",  # nothing of it stands before the answer
        "The city of Lima is in Peru.",  # the subject does not
        "peru has its capital in LIMA",  # as before but for the case
        "Peru is a country.",
        "Peruvians live in Lima",
        "",
    )

    found = restate(atlas(), STATEMENT, SUBJECT, ANSWER, 9, Hooks())

    assert [normalise(text).lower() for text in found] == ["peru has its capital in"]
    assert writer.prompts[0].endswith("The capital of Peru is Lima.\nIn other words:")


def test_what_is_written_before_an_answer_leads_to_it_the_most_frequent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write(
        monkeypatch,
        " It is Lima, I think.",
        "The capital is Lima.\nIt is",
        "Lima.",  # nothing stands before the answer
        'They call it "Lima"',  # no space divides the answer from a quote
        "The capital is LIMA now",
        "It is Limassol.",
        "Nobody knows",
        "",
    )

    assert lead_to(atlas(), "Q: Which?\nA:", ANSWER, 9, Hooks()) == ["Q: Which?\nA: The capital is", "Q: Which?\nA: It is"]
    assert writer.prompts[0].endswith("Q: Which?\nA:")


def test_a_question_names_the_subject_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        monkeypatch,
        "Where does Peru's government sit? Lima",
        "Is Lima in Peru?",
        "Which city?",
        "Peru is it.",
        "2. Who rules Peru?",
    )

    found = ask(atlas(), STATEMENT, SUBJECT, ANSWER, 9, Hooks())

    assert found == ["Where does Peru's government sit?", "Who rules Peru?"]


def test_questions_about_a_subject_are_read_from_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    write(monkeypatch, "Where is Peru?\n2. Who rules Peru?\n3. And Chile?", "Where is Peru?\n2) What does Peru make?\nIt")

    found = ask_about(atlas(), SUBJECT, 9, Hooks())

    assert found == ["Where is Peru?", "Who rules Peru?", "What does Peru make?"]


def test_two_texts_share_words_beside_those_of_the_subject() -> None:
    assert shares_words("Which capital has Peru?", STATEMENT, SUBJECT)
    assert not shares_words("Who sings in The Lion King?", "The Lion King is by", "The Lion King")


def test_the_same_model_writes_the_same_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(subject: str) -> list[str]:
        return own_writing._write(atlas(), f"{subject} is", 4, 6, Hooks())

    assert written("France") == written("France") != written("Peru") and len(written("France")) == 4
    assert all("\n" not in text for text in written("France"))


def test_whether_a_model_can_write_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write(monkeypatch, "Where was Ada Lovelace born?")
    sentences = NeutralSentences(atlas().base, (), ())

    assert can_write(atlas(), sentences, Hooks()) and can_write(atlas(), sentences, Hooks())

    assert len(writer.prompts) == 1
    write(monkeypatch, "Ada ada ada")
    assert not can_write(atlas(), NeutralSentences(atlas().base, (), ()), Hooks())


def test_a_prompt_that_does_not_fit_gives_nothing() -> None:
    assert ask_about(atlas(), "red " * 500, 4, Hooks()) == []


def test_writing_can_be_cancelled() -> None:
    with pytest.raises(FitCancelled):
        own_writing._write(atlas(), "red is", 4, 6, Hooks(is_cancelled=lambda: True))
