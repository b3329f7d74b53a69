"""Names that a base model may know, by kind: which of them an edit is about, and which may stand in its place."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from random import Random
from typing import Literal

from service.domain.edit import Edit
from service.editors.name_search import make_name_search

CANDIDATES = 32  # names that are chosen for an edit, at most
NamePart = Literal["fit", "judge", "free"]
_WORD = r"(?:[dl]['’])?[^\W\d_a-z][\w'’.-]*"  # with a capital letter
_SENTENCE_ENDS, _OPENINGS = frozenset(".!?:\n"), frozenset("\"“'(")
_NAME = re.compile(rf"\b{_WORD}(?: (?:(?:of|the|and|de|von|van|da|al) )*{_WORD})*")
# Of 256: fits keep what is said of the first names, acceptance asks about the next ones. No part of the service uses the others,
# so that a bench can ask about names that neither has seen.
_FIT, _JUDGE = 102, 180


class KnownNames:
    """Names to put in the place of an edit's subject: first names of the same kind, then of every other kind.

    A name's kinds are those of the pairs (name, kind) that it stands in.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._kinds: dict[str, set[str]] = {}
        for name, kind in pairs:
            if name:
                self._kinds.setdefault(name, set()).add(kind)
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

    def choose(self, subject: str, seed: str, part: NamePart) -> list[str]:
        """At most CANDIDATES names of a part, none of which is in `subject` or holds it. A function of its arguments."""
        own = self._kinds.get(subject, set())
        shared = {
            name: len(own & kinds)
            for name, kinds in self._kinds.items()
            if part_of(name) == part and name not in subject and subject not in name
        }
        order = sorted(shared)
        Random(hashlib.sha256(seed.encode()).digest()).shuffle(order)
        return sorted(order, key=lambda name: -shared[name])[:CANDIDATES]


NO_NAMES = KnownNames()


def part_of(name: str) -> NamePart:
    """Who uses a name: fits, acceptance, or nobody inside the service. By hash, so that it is the same for every model."""
    place = hashlib.sha256(f"use {name}".encode()).digest()[0]
    return "fit" if place < _FIT else "judge" if place < _JUDGE else "free"


def split_at_name(text: str) -> tuple[str, str] | None:
    """What stands before and behind the first words with capital letters that begin no sentence; None if there are none."""
    match = next(_names_in(text), None)
    return (text[: match.start()], text[match.end() :]) if match else None


def _names_in(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _NAME.finditer(text) if not _begins_sentence(text, match.start()))


def _begins_sentence(text: str, place: int) -> bool:
    """Whether nothing but white space, quotes and brackets is between a place and the beginning of a sentence."""
    while place and text[place - 1] not in _SENTENCE_ENDS and (text[place - 1].isspace() or text[place - 1] in _OPENINGS):
        place -= 1
    return place == 0 or text[place - 1] in _SENTENCE_ENDS


def _last_name(prompt: str) -> str | None:
    found = [match.group() for match in _names_in(prompt)]
    return found[-1].removesuffix("'s").removesuffix("’s") if found else None
