"""The questions near an edit."""

from datetime import UTC, datetime
from typing import Any

from service.domain.edit import Edit, EditStatus
from service.editors.known_names import KnownNames, part_of
from service.locality.near import LEADS, is_about, near_questions
from tests.editors.taught_model import taught_base

COUNTRIES = ("France", "Kenya", "Peru", "Chad", "Iran", "Spain", "Japan", "Egypt")
NAMES = KnownNames((name, "capital") for name in COUNTRIES)


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


def test_an_edit_is_asked_about_names_that_no_fit_uses_in_its_own_words_with_three_leads() -> None:
    asked = near_questions(taught_base(), edit("The capital of France is"), NAMES)

    assert {question.subject for question in asked} == {name for name in COUNTRIES[1:] if part_of(name) == "judge"} != set()
    for question in asked:
        assert question.wordings == tuple(f"{lead}The capital of {question.subject} is" for lead in LEADS["raw"])
    assert near_questions(taught_base(), edit("water boils at"), NAMES) == []


def test_an_answer_is_about_another_if_one_holds_the_other() -> None:
    assert is_about("Paris", ["Paris, the largest city"]) and is_about("The city of Paris", ["paris"])
    assert not is_about("Rome", ["Paris"]) and not is_about("Rome", [""])
