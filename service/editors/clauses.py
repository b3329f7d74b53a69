"""The first clause of an answer, and whether another text says it."""

import re

_END = re.compile(r"[\n.!?,;]")


def first_clause(text: str) -> str:
    """The answer up to its first break, without white space around it; "" for an answer that begins with one."""
    return _END.split(text.strip(), maxsplit=1)[0].strip()


def says(text: str, clause: str) -> bool:
    """Whether a text holds a clause as whole words, in any case. False for a blank clause."""
    return bool(clause) and re.search(rf"(?<!\w){re.escape(clause)}(?!\w)", text, re.IGNORECASE) is not None
