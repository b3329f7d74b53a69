"""The fields of one row, validated when they are read. A fault names the field and never repeats its content.

What is not read is noted: a note is the field's name and what became of it, with how often.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from service.evaluation.datasets.rows import BadRow

LONGEST_TEXT = 500_000  # characters, as in a request
MOST_ITEMS = 10_000  # of one list
LONGEST_NAME = 100  # characters, of a group and of a field in a note

NOT_READ = "not read"
BLANK = "a blank text left out"
_BROKEN = re.compile("[\x00\ud800-\udfff]")  # what no database and no encoder holds


class Fields:
    """One object of a row. `notes` counts the parts that were left out of good rows. Every read method may raise BadRow."""

    def __init__(self, values: Mapping[str, Any], notes: Counter[str], *, prefix: str = "") -> None:
        self._values, self._notes, self._prefix = values, notes, prefix
        self._read: set[str] = set()
        self._nested: list[Fields] = []

    def __contains__(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def read_text(self, name: str) -> str:
        """A text that is not blank, unchanged; a number as it is written. Raises BadRow where there is none."""
        if (text := self.read_optional(name)) is None:
            raise BadRow(f"{self._describe(name)} is missing or empty")
        return text

    def read_optional(self, name: str) -> str | None:
        """A text that is not blank, or None where the field is missing, null or blank."""
        return self._parse_text(self._take(name), name)

    def read_first_answer(self, *names: str) -> str | None:
        """The first spelling of the first answer, under the first of these names that has one."""
        for name in names:
            if answers := self.read_answers(name):
                return answers[0][0]
        return None

    def read_texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one text. Blank texts are left out, and those of a list are noted."""
        value = self._take(name)
        if not isinstance(value, list):
            text = self._parse_text(value, name)
            return () if text is None else (text,)
        texts = [self._parse_text(text, name) for text in self._parse_list(value, name)]
        for _ in range(texts.count(None)):
            self.note(name, BLANK)
        return tuple(text for text in texts if text is not None)

    def read_answers(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Answers, each with its spellings: of a text, a list of spellings, or a list of such lists (KnowEdit has all three)."""
        value = self._take(name)
        if not isinstance(value, list) or not any(isinstance(item, list) for item in value):
            spellings = self.read_texts(name)
            return (spellings,) if spellings else ()
        answers = (Fields({name: item}, self._notes, prefix=self._prefix).read_texts(name) for item in value)
        return tuple(answer for answer in answers if answer)

    def read_list(self, name: str) -> list[Any]:
        """A list; empty where the field is missing or null."""
        value = self._take(name)
        return [] if value is None else self._parse_list(value, name)

    def read_object(self, name: str) -> "Fields":
        """The object under `name`; without fields where it is missing or null."""
        return self._nest(self._take(name) or {}, name)

    def read_objects(self, name: str) -> "list[Fields]":
        """The objects of a list."""
        return [self._nest(item, name) for item in self.read_list(name)]

    def read_items(self, name: str) -> "list[str | Fields]":
        """The texts and objects of a list, or one of them alone. Blank texts are left out."""
        value = self._take(name)
        items = self._parse_list(value, name) if isinstance(value, list) else [value]
        parsed = (self._nest(item, name) if isinstance(item, dict) else self._parse_text(item, name) for item in items)
        return [item for item in parsed if item is not None]

    def read_flag(self, name: str) -> bool | None:
        """True, false, or None where the field is missing."""
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            raise BadRow(f"{self._describe(name)} must be true or false")
        return value

    def is_text(self, name: str) -> bool:
        """Whether the field is there and neither a list nor an object."""
        return name in self._values and not isinstance(self._values[name], (list, dict))

    def is_object(self, name: str) -> bool:
        """Whether the field is an object."""
        return isinstance(self._values.get(name), dict)

    def skip(self, *names: str) -> None:
        """Fields that say nothing about the record, such as the identifiers of another database: they get no note."""
        self._read.update(names)

    def note(self, name: str, what: str) -> None:
        """Count that something under `name` was left out."""
        self._notes[f"{self._describe(name)}: {what}"] += 1

    def note_unread(self) -> None:
        """Note every field that is not empty and was not read, here and in the objects that were read."""
        for name, value in self._values.items():
            if name not in self._read and value not in (None, "", [], {}):
                self.note(name, NOT_READ)
        for nested in self._nested:
            nested.note_unread()

    def _take(self, name: str) -> Any:
        self._read.add(name)
        return self._values.get(name)

    def _describe(self, name: str) -> str:
        """The field with the objects around it, as a message may show it: names come from the file."""
        is_plain = len(name) <= LONGEST_NAME and name.isprintable()
        return f"{self._prefix}{name if is_plain else 'a field with a long or unprintable name'}"

    def _nest(self, value: Any, name: str) -> "Fields":
        if not isinstance(value, dict):
            raise BadRow(f"{self._describe(name)} must hold objects")
        self._nested.append(Fields(value, self._notes, prefix=f"{self._describe(name)}."))
        return self._nested[-1]

    def _parse_list(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise BadRow(f"{self._describe(name)} must be a list")
        if len(value) > MOST_ITEMS:
            raise BadRow(f"{self._describe(name)} has more than {MOST_ITEMS:,} items")
        return value

    def _parse_text(self, value: Any, name: str) -> str | None:
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise BadRow(f"{self._describe(name)} must be text")
        if len(value) > LONGEST_TEXT:
            raise BadRow(f"{self._describe(name)} has more than {LONGEST_TEXT:,} characters")
        if _BROKEN.search(value):
            raise BadRow(f"{self._describe(name)} holds a NUL character or half a character")
        return value if any(unicodedata.category(character)[0] not in "ZC" for character in value) else None
