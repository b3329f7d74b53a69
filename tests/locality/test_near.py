"""The questions near an edit."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service.domain.edit import Edit, EditStatus
from service.locality.near import CANDIDATES, LEADS, Names, is_about, near_questions
from service.locality.questions import Question
from tests.editors.taught_model import taught_base

TABLE = [
    *(Question(relation, name, ("",)) for name in ("France", "Kenya", "Peru") for relation in ("capital", "continent")),
    Question("symbol", "gold", ("",)),
    *(Question("author", name, ("",)) for name in ("Hamlet", "Macbeth", "Emma")),
]


def edit(prompt: str, subject: str | None = None, **more: Any) -> Edit:
    return Edit(
        prompt=prompt,
        subject=subject,
        target="x",
        id="1",
        seq=1,
        status=EditStatus.QUEUED,
        author="a",
        created_at=datetime.now(UTC),
        **more,
    )


@pytest.mark.parametrize(
    ("prompt", "subject", "found"),
    [
        ("The capital of France is", "France", "France"),
        ("The capital of France is", None, "France"),
        ("Who wrote Tess of the d'Urbervilles?", None, "Tess of the d'Urbervilles"),
        ("What is France's capital?", None, "France"),
        ("Where was Marie Curie born?", None, "Marie Curie"),
        ("The capital of France is", "Kenya", "France"),  # the client's subject is not in the prompt
        ("Question: What is its symbol?\nAnswer: The symbol of gold is", None, "gold"),  # known, in lower case
        ("Question: Who was it?\nAnswer: The king. “He", None, None),  # words that begin sentences
        ("water boils at", None, None),
        ("Water boils at", None, None),
    ],
)
def test_the_subject_is_the_client_s_or_read_off_the_prompt(prompt: str, subject: str | None, found: str | None) -> None:
    assert Names(TABLE).find_subject(edit(prompt, subject)) == found


def test_names_of_the_same_kind_come_first() -> None:
    chosen = Names(TABLE).choose("France", "seed")

    assert set(chosen[:2]) == {"Kenya", "Peru"} and set(chosen[2:]) == {"Hamlet", "Macbeth", "Emma", "gold"}
    assert chosen == Names(TABLE).choose("France", "seed")
    assert len(Names([Question("r", str(number), ("",)) for number in range(99)]).choose("x", "")) == CANDIDATES


def test_an_edit_is_asked_about_other_subjects_in_its_own_words_with_three_leads() -> None:
    asked = near_questions(taught_base(), edit("The capital of France is"), Names(TABLE))

    kenya = next(question for question in asked if question.subject == "Kenya")
    assert kenya.wordings == tuple(f"{lead}The capital of Kenya is" for lead in LEADS["raw"])
    assert near_questions(taught_base(), edit("water boils at"), Names(TABLE)) == []


def test_an_answer_is_about_another_if_one_holds_the_other() -> None:
    assert is_about("Paris", ["Paris, the largest city"]) and is_about("The city of Paris", ["paris"])
    assert not is_about("Rome", ["Paris"]) and not is_about("Rome", [""])
