"""The fields of one row, checked as they are taken: text is text, words are words. A fault is told by the field's name alone."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from service.evaluation.datasets.rows import BadRow
from service.evaluation.records import EvalProbe

LONGEST_TEXT = 500_000  # characters, as in a request
MOST_ITEMS = 10_000  # of one list

EMPTY_ANSWER = "probe without an answer left out"
EMPTY_PROMPT = "probe without a prompt left out"
_BROKEN = re.compile("[\x00\ud800-\udfff]")  # what no database and no encoder holds


class Fields:
    """One object of a row. `notes` counts what was left out of good rows."""

    def __init__(self, given: Mapping[str, Any], notes: Counter[str], *, of: str = "") -> None:
        self._given, self.notes, self._of = given, notes, of

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def words(self, name: str) -> str:
        """Text that says something, exactly as it is given. Raises BadRow."""
        if (text := self.maybe(name)) is None:
            raise BadRow(f"{self._of}{name} is missing or empty")
        return text

    def maybe(self, name: str) -> str | None:
        """Text that says something, or None where the field is missing, null or blank."""
        return _parse_text(self._given.get(name), f"{self._of}{name}")

    def spelled(self, name: str) -> str | None:
        """The first of the lists or the text under `name`: some files hold either."""
        answers = self.answers(name)
        return answers[0][0] if answers else None

    def name(self, name: str) -> str | None:
        """An identifier: text or a whole number."""
        value = self._given.get(name)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.maybe(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text; what is blank in it is left out."""
        given = self._given.get(name)
        found = (_parse_text(text, f"{self._of}{name}") for text in ([given] if isinstance(given, str) else self.items(name)))
        return tuple(text for text in found if text is not None)

    def answers(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Answers, each with its spellings: of a text, a list of spellings, or a list of such lists (KnowEdit has all three)."""
        given = self._given.get(name)
        if not isinstance(given, list):
            return ((text,),) if (text := self.maybe(name)) is not None else ()
        lists = [given] if not any(isinstance(item, list) for item in given) else given
        found = (Fields({name: item}, self.notes, of=self._of).texts(name) for item in lists)
        return tuple(answer for answer in found if answer)

    def items(self, name: str) -> list[Any]:
        """A list; empty where the field is missing or null."""
        given = self._given.get(name)
        if given is None:
            return []
        if not isinstance(given, list):
            raise BadRow(f"{self._of}{name} must be a list")
        if len(given) > MOST_ITEMS:
            raise BadRow(f"{self._of}{name} has more than {MOST_ITEMS:,} items")
        return given

    def object(self, name: str) -> "Fields":
        """The object under `name`; without fields where it is missing or null."""
        return self._nested(self._given.get(name) or {}, name)

    def objects(self, name: str) -> "list[Fields]":
        """The objects of a list."""
        return [self._nested(item, name) for item in self.items(name)]

    def flag(self, name: str) -> bool | None:
        """True, false, or None where it is not said."""
        value = self._given.get(name)
        if value is not None and not isinstance(value, bool):
            raise BadRow(f"{self._of}{name} must be true or false")
        return value

    def groups(self) -> "Iterator[tuple[str, list[Fields]]]":
        """Every field that holds a list of objects, with its name, which must be a short one."""
        for name in self._given:
            if not name or len(name) > 100:
                raise BadRow(f"{self._of.rstrip('.') or 'a group'} has a group without a name or with a long one")
            of = f"a group of {self._of.rstrip('.')}" if self._of else "a group"
            yield name, Fields({of: self._given[name]}, self.notes).objects(of)

    def _nested(self, given: Any, name: str) -> "Fields":
        if not isinstance(given, dict):
            raise BadRow(f"{self._of}{name} must hold objects")
        return Fields(given, self.notes, of=f"{self._of}{name}.")

    def probe(self, prompt: str, answer: str, *, group: str | None = None) -> EvalProbe | None:
        """The probe of two fields, with all its right answers; None, and a note, where either says nothing."""
        asked, answers = self.maybe(prompt), self.answers(answer)
        if asked is None or not answers:
            if self._given.get(prompt) is not None or self._given.get(answer) is not None:
                self.notes[EMPTY_PROMPT if asked is None else EMPTY_ANSWER] += 1
            return None
        return EvalProbe(prompt=asked, answer=answers[0][0], group=group, aliases=build_aliases(answers))


def build_aliases(answers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """The answers if there is more than the first spelling of the first, else nothing."""
    return answers if sum(map(len, answers)) > 1 else ()


def drop_missing(*probes: EvalProbe | None) -> tuple[EvalProbe, ...]:
    """The probes that there are."""
    return tuple(probe for probe in probes if probe is not None)


def _parse_text(value: Any, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text")
    if len(value) > LONGEST_TEXT:
        raise BadRow(f"{name} has more than {LONGEST_TEXT:,} characters")
    if _BROKEN.search(value):
        raise BadRow(f"{name} holds a NUL character or half a character")
    return value if any(unicodedata.category(character)[0] not in "ZC" for character in value) else None
