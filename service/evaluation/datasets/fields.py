"""The fields of one row, validated when they are read. A fault names the field and never repeats its content."""

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
    """One object of a row. `notes` counts the parts that were left out of good rows. Every read method may raise BadRow."""

    def __init__(self, values: Mapping[str, Any], notes: Counter[str], *, prefix: str = "") -> None:
        self._values, self.notes, self._prefix = values, notes, prefix

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def read_text(self, name: str) -> str:
        """A text that is not blank, unchanged. Raises BadRow where there is none."""
        if (text := self.read_optional(name)) is None:
            raise BadRow(f"{self._prefix}{name} is missing or empty")
        return text

    def read_optional(self, name: str) -> str | None:
        """A text that is not blank, or None where the field is missing, null or blank."""
        return _parse_text(self._values.get(name), f"{self._prefix}{name}")

    def read_first_answer(self, name: str) -> str | None:
        """The first spelling of the first answer under `name`."""
        answers = self.read_answers(name)
        return answers[0][0] if answers else None

    def read_id(self, name: str) -> str | None:
        """An identifier: text or a whole number."""
        value = self._values.get(name)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.read_optional(name)

    def read_texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text. Blank texts are left out."""
        value = self._values.get(name)
        texts = (
            _parse_text(text, f"{self._prefix}{name}") for text in ([value] if isinstance(value, str) else self.read_list(name))
        )
        return tuple(text for text in texts if text is not None)

    def read_answers(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Answers, each with its spellings: of a text, a list of spellings, or a list of such lists (KnowEdit has all three)."""
        value = self._values.get(name)
        if not isinstance(value, list):
            return ((text,),) if (text := self.read_optional(name)) is not None else ()
        lists = [value] if not any(isinstance(item, list) for item in value) else value
        answers = (Fields({name: item}, self.notes, prefix=self._prefix).read_texts(name) for item in lists)
        return tuple(answer for answer in answers if answer)

    def read_list(self, name: str) -> list[Any]:
        """A list; empty where the field is missing or null."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise BadRow(f"{self._prefix}{name} must be a list")
        if len(value) > MOST_ITEMS:
            raise BadRow(f"{self._prefix}{name} has more than {MOST_ITEMS:,} items")
        return value

    def read_object(self, name: str) -> "Fields":
        """The object under `name`; without fields where it is missing or null."""
        return self._nested(self._values.get(name) or {}, name)

    def read_objects(self, name: str) -> "list[Fields]":
        """The objects of a list."""
        return [self._nested(item, name) for item in self.read_list(name)]

    def read_flag(self, name: str) -> bool | None:
        """True, false, or None where the field is missing."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise BadRow(f"{self._prefix}{name} must be true or false")
        return value

    def read_groups(self) -> "Iterator[tuple[str, list[Fields]]]":
        """Every field as a group: its name, of at most 100 characters, and its list of objects."""
        for name in self._values:
            if not name or len(name) > 100:
                raise BadRow(f"{self._prefix.rstrip('.') or 'a group'} has a group without a name or with a long one")
            group_prefix = f"a group of {self._prefix.rstrip('.')}" if self._prefix else "a group"
            yield name, Fields({group_prefix: self._values[name]}, self.notes).read_objects(group_prefix)

    def _nested(self, value: Any, name: str) -> "Fields":
        if not isinstance(value, dict):
            raise BadRow(f"{self._prefix}{name} must hold objects")
        return Fields(value, self.notes, prefix=f"{self._prefix}{name}.")

    def read_probe(self, prompt_field: str, answer_field: str, *, group: str | None = None) -> EvalProbe | None:
        """The probe of a prompt field and an answer field, with all right answers. None, and a note, where either is blank."""
        prompt, answers = self.read_optional(prompt_field), self.read_answers(answer_field)
        if prompt is None or not answers:
            if self._values.get(prompt_field) is not None or self._values.get(answer_field) is not None:
                self.notes[EMPTY_PROMPT if prompt is None else EMPTY_ANSWER] += 1
            return None
        return EvalProbe(prompt=prompt, answer=answers[0][0], group=group, aliases=build_aliases(answers))


def build_aliases(answers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """All answers with their spellings; nothing if there is one answer with one spelling."""
    return answers if sum(map(len, answers)) > 1 else ()


def drop_missing(*probes: EvalProbe | None) -> tuple[EvalProbe, ...]:
    """The probes without None."""
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
