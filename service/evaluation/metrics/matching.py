"""Matching of generated text as the field defines it: cut at a stop string, normalised as in SQuAD, compared exactly."""

import re
import string
from collections.abc import Sequence

_ARTICLE = re.compile(r"\b(a|an|the)\b")
SOLUTION = "####"  # GSM8K's mark in front of the number
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_squad(text: str) -> str:
    """SQuAD's normalisation: lower case, without ASCII punctuation, without a, an and the, white space collapsed."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stops."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def matches_field(answer: str, accepted: str) -> bool:
    """LocFT's exact match, but "." ends an answer only if the right one has none. Else "St. Louis" could never be right."""
    return _same(answer, accepted, ("\n",) if "." in accepted else (".", "\n"))


def matches_locft(answer: str, accepted: str) -> bool:
    """LocFT's exact match unchanged, for the whole text as generated: its first "." or newline ends it, wherever that stands.

    So no answer matches a target with a ".", and an answer that begins with a newline is blank.
    """
    return normalise_squad(cut_at(answer, (".", "\n"))) == normalise_squad(accepted)


def extract_number(text: str) -> float | None:
    """The first number after `####`, else the last number of the text. Text after the next "Question:" is ignored."""
    head, mark, tail = text.split("Question:")[0].partition(SOLUTION)
    numbers = _NUMBER.findall(tail if mark else head)
    return float((numbers[0] if mark else numbers[-1]).replace(",", "")) if numbers else None


def _same(answer: str, accepted: str, stops: Sequence[str]) -> bool:
    return normalise_squad(cut_at(answer.lstrip(), stops)) == normalise_squad(accepted)
