"""Whether an answer says what it should. Only its first clause counts, and only the first of two rival names in it."""

import re
import unicodedata

# A full stop ends a clause unless it belongs to a short form before a name, such as St. or Dr.
_CLAUSE_END = re.compile(r"\n|(?<!\bSt)(?<!\bMt)(?<!\bDr)(?<!\bMr)(?<!\b[A-Z])[.!?](?=\s|$)")
_CASED = 3  # up to this length the case counts: "He" is helium, "he" is a word


def first_clause(text: str) -> str:
    """The answer up to its first line break or end of a sentence, without white space around it."""
    return _CLAUSE_END.split(text.strip(), maxsplit=1)[0].strip()


def says(text: str, answer: str, *, rival: str | None = None) -> bool:
    """Whether the first clause of a text has `answer` as whole words, and not after `rival`."""
    clause = first_clause(text)
    position = _find(clause, answer)
    if position is None:
        return False
    other = None if rival is None or _is_part(answer, rival) else _find(clause, rival)
    return other is None or position <= other


def _find(clause: str, answer: str) -> int | None:
    name = _plain(answer.strip().rstrip(".!?"))  # a clause is cut before its end
    if not name:
        return None
    pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
    found = re.search(pattern, _plain(clause), 0 if len(name) <= _CASED else re.IGNORECASE)
    return None if found is None else found.start()


def _is_part(answer: str, rival: str) -> bool:
    """Whether a rival lies within the answer, as Mexico in Mexico City: then its place says nothing."""
    return _plain(rival.strip()).casefold() in _plain(answer.strip()).casefold()


def _plain(text: str) -> str:
    """Without accents and with plain apostrophes."""
    decomposed = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return "".join(char for char in decomposed if not unicodedata.combining(char))
