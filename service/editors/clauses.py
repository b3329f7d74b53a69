"""The first clause of an answer, and whether another text says it."""

import re

_END = re.compile(r"[\n.!?,;]")


def first_clause(text: str) -> str:
    """The answer up to its first break, without white space around it; "" for an answer that begins with one."""
    return _END.split(text.strip(), maxsplit=1)[0].strip()


def ends_clause(text: str) -> bool:
    """Whether the first clause of an answer ends within a text that is its beginning."""
    return _END.search(text.lstrip()) is not None


def says(text: str, clause: str) -> bool:
    """Whether a text holds a clause as whole words, in any case. False for a blank clause."""
    return find_clause(text, clause) is not None


def find_clause(text: str, clause: str) -> int | None:
    """Where a text first holds a clause as whole words, in any case. None for a blank clause."""
    found = re.search(rf"(?<!\w){re.escape(clause)}(?!\w)", text, re.IGNORECASE) if clause else None
    return found.start() if found else None
