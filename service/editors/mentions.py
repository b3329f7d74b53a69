"""Which of many names a text holds, as words and not as letters of other words. Knows no edits and no model."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise

from service.domain.edit import normalise
from service.domain.writing_systems import is_single_character_word

_HEAD = 4  # characters by which names are found; those of names alike that far differ in length or not at all
_LEAST = 3  # letters of a name: shorter ones are also everyday words
_LEAST_WITHOUT_SPACES = 2


def make_name_finder(names: Iterable[str], *, any_case: bool = False) -> Callable[[str], bool]:
    """Whether a text holds one of the names, where a word begins and to where one ends; white space counts as one space.

    In scripts that set no spaces between words, anywhere. The cost of a text is about its length, however many names there are.
    """
    written = _lowered if any_case else normalise
    known = {written(name) for name in names} - {""}
    by_head: dict[str, set[int]] = defaultdict(set)
    for name in known:
        by_head[name[:_HEAD]].add(len(name))
    heads = sorted({len(head) for head in by_head})

    def holds(text: str) -> bool:
        text = written(text)
        edges = _edges(text)
        return any(
            edges[start + length] and text[start : start + length] in known
            for start in range(len(text))
            if edges[start]
            for head in heads
            for length in by_head.get(text[start : start + head], ())
            if start + length < len(edges)
        )

    return holds


def is_distinctive(name: str, *, any_case: bool = False) -> bool:
    """Whether a name is long enough to be found as more than an everyday word: two letters are where they are capitals whose
    case counts, or where each is a syllable or a word.
    """
    letters = [character for character in name if character.isalnum()]
    if len(letters) >= _LEAST:
        return True
    return len(letters) == _LEAST_WITHOUT_SPACES and (
        any(map(is_single_character_word, letters)) or (not any_case and name.isupper())
    )


def _lowered(text: str) -> str:
    return normalise(text).lower()


def _edges(text: str) -> list[bool]:
    """For every place between two characters, and both ends, whether a word may begin or end there."""
    bound = [_binds(character) for character in text]
    return [True, *(not (left and right) for left, right in pairwise(bound)), True] if text else [True]


@lru_cache(maxsize=4_096)
def _binds(character: str) -> bool:
    """Whether a word goes on from this character to another such."""
    return unicodedata.category(character)[0] in "LMN" and not is_single_character_word(character)
