"""Questions near an edit: its own prompt with other subjects, and what else is known of its own subject."""

from collections.abc import Collection

from service.domain.edit import Edit
from service.editors.known_names import KnownNames
from service.lm.base import Base
from service.locality.questions import Question

# Put before the edit's prompt: the answer should be the same with each of them.
LEADS = {"raw": ("", "Fact: ", "As is well known: "), "chat": ("", "Please answer: ", "Answer shortly. ")}


def near_questions(base: Base, edit: Edit, names: KnownNames) -> list[Question]:
    """The edit's prompt about other subjects, in three wordings, on each of the edit's surfaces in turn. None for an edit whose
    prompt names no subject.
    """
    subject = names.find_subject(edit)
    if subject is None:
        return []
    surfaces = [surface for surface in edit.surfaces or base.surfaces if surface in base.surfaces]
    chosen = names.choose(subject, edit.prompt, "judge")
    return [
        _question(edit.prompt.replace(subject, name), name, surfaces[number % len(surfaces)])
        for number, name in enumerate(chosen)
        if surfaces
    ]


def is_about(answer: str, answers: Collection[str]) -> bool:
    """Whether an answer says the same as one of `answers`, or a part of it."""
    return any(_is_part(answer, other) for other in answers)


def _question(prompt: str, name: str, surface: str) -> Question:
    return Question("near", name, tuple(lead + prompt for lead in LEADS[surface]), surface)


def _is_part(one: str, other: str) -> bool:
    one, other = one.strip().casefold(), other.strip().casefold()
    return bool(one and other) and (one in other or other in one)
