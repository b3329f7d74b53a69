"""Questions near an edit: its own prompt with other subjects, and what else is known of its own subject."""

import hashlib
import re
from collections.abc import Collection, Sequence
from random import Random

from service.domain.edit import Edit
from service.editors.name_search import make_name_search
from service.lm.base import Base
from service.locality.questions import Question

CANDIDATES = 32  # names tried for an edit
# Put before the edit's prompt: the answer should be the same with each of them.
LEADS = {"raw": ("", "Fact: ", "As is well known: "), "chat": ("", "Please answer: ", "Answer shortly. ")}
_WORD = r"(?:[dl]['’])?[^\W\d_a-z][\w'’.-]*"  # with a capital letter
_SENTENCE_START = re.compile(r"(?:^|[.!?:\n])[\s\"“'(]*$")
_NAME = re.compile(rf"\b{_WORD}(?: (?:(?:of|the|and|de|von|van|da|al) )*{_WORD})*")


class Names:
    """Names to put in the place of an edit's subject: first names of the same kind, then of every other kind."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._kinds: dict[str, set[str]] = {}
        for question in questions:
            if question.subject:
                self._kinds.setdefault(question.subject, set()).add(question.relation)
        self._search = make_name_search(self._kinds)

    @property
    def all(self) -> Collection[str]:
        """Every name."""
        return self._kinds.keys()

    def has_kind(self, subject: str | None) -> bool:
        """Whether there are names of the same kind as a subject."""
        return subject in self._kinds

    def find_subject(self, edit: Edit) -> str | None:
        """The subject as it stands in the prompt: the one that the client gave; or else the longest known name; or else the last
        words with capital letters that begin no sentence. None if there is none.
        """
        if edit.subject is not None and edit.subject in edit.prompt:
            return edit.subject
        known = max((name for name in self._search(edit.prompt) if name in edit.prompt), key=len, default=None)
        return known or _last_name(edit.prompt)

    def choose(self, subject: str, seed: str) -> list[str]:
        """At most CANDIDATES names other than `subject`. The same arguments give the same names."""
        own = self._kinds.get(subject, set())
        shared = {name: len(own & kinds) for name, kinds in self._kinds.items() if name not in subject and subject not in name}
        order = sorted(shared)
        Random(hashlib.sha256(seed.encode()).digest()).shuffle(order)
        return sorted(order, key=lambda name: -shared[name])[:CANDIDATES]


def near_questions(base: Base, edit: Edit, names: Names) -> list[Question]:
    """The edit's prompt about other subjects, in three wordings, on each of the edit's surfaces in turn. None for an edit whose
    prompt names no subject.
    """
    subject = names.find_subject(edit)
    if subject is None:
        return []
    surfaces = [surface for surface in edit.surfaces or base.surfaces if surface in base.surfaces]
    chosen = names.choose(subject, edit.prompt)
    return [
        _question(edit.prompt.replace(subject, name), name, surfaces[number % len(surfaces)])
        for number, name in enumerate(chosen)
        if surfaces
    ]


def is_about(answer: str, answers: Collection[str]) -> bool:
    """Whether an answer says the same as one of `answers`, or a part of it."""
    return any(_is_part(answer, other) for other in answers)


def _last_name(prompt: str) -> str | None:
    found = [match.group() for match in _NAME.finditer(prompt) if not _SENTENCE_START.search(prompt[: match.start()])]
    return found[-1].removesuffix("'s").removesuffix("’s") if found else None


def _question(prompt: str, name: str, surface: str) -> Question:
    return Question("near", name, tuple(lead + prompt for lead in LEADS[surface]), surface)


def _is_part(one: str, other: str) -> bool:
    one, other = one.strip().casefold(), other.strip().casefold()
    return bool(one and other) and (one in other or other in one)
