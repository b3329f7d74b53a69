"""Search for many names in a text, as whole words. Knows no edits and no model."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

from service.domain.edit import normalise
from service.domain.writing_systems import is_single_character_word

_PREFIX_LENGTH = 4  # characters of the index key; names with one key rarely differ in length
_MIN_LETTERS = 3  # letters of a name: shorter names are also everyday words
_MIN_LETTERS_UNSPACED = 2


def make_name_finder(names: Iterable[str], *, any_case: bool = False) -> Callable[[str], bool]:
    """A predicate: whether a text holds one of the names, as `make_name_search` finds them."""
    search = make_name_search(names, any_case=any_case)
    return lambda text: next(search(text), None) is not None


def make_name_search(names: Iterable[str], *, any_case: bool = False) -> Callable[[str], Iterator[str]]:
    """A search for the names in a text, from a word's start to a word's end. White space counts as one space. A name comes as
    often as it is found, as it is spelled in `names`; with `any_case`, in lower case.

    In scripts that set no spaces between words, a name may be anywhere. The cost of a text grows with its length and not with the
    number of names.
    """
    written = _lowered if any_case else normalise
    spellings = {written(name) for name in names} - {""}
    lengths_by_prefix: dict[str, set[int]] = defaultdict(set)
    for name in spellings:
        lengths_by_prefix[name[:_PREFIX_LENGTH]].add(len(name))
    prefix_lengths = sorted({len(prefix) for prefix in lengths_by_prefix})

    def search(text: str) -> Iterator[str]:
        text = written(text)
        edges = _edges(text)
        for start in (place for place in range(len(text)) if edges[place]):
            for prefix_length in prefix_lengths:
                for length in lengths_by_prefix.get(text[start : start + prefix_length], ()):
                    end = start + length
                    if end < len(edges) and edges[end] and text[start:end] in spellings:
                        yield text[start:end]

    return search


def is_distinctive(name: str, *, any_case: bool = False) -> bool:
    """Whether a name is long enough to be more than an everyday word.

    Two letters are enough if they are capitals and case counts, or if each is a syllable or a word of its script.
    """
    letters = [character for character in name if character.isalnum()]
    if len(letters) >= _MIN_LETTERS:
        return True
    return len(letters) == _MIN_LETTERS_UNSPACED and (
        any(map(is_single_character_word, letters)) or (not any_case and name.isupper())
    )


def _lowered(text: str) -> str:
    return normalise(text).lower()


def _edges(text: str) -> list[bool]:
    """For every gap between two characters, and for both ends: whether a word may begin or end there."""
    bound = [_binds(character) for character in text]
    return [True, *(not (left and right) for left, right in pairwise(bound)), True] if text else [True]


@lru_cache(maxsize=4_096)
def _binds(character: str) -> bool:
    """Whether a word continues from this character to the next one of the same kind."""
    return unicodedata.category(character)[0] in "LMN" and not is_single_character_word(character)
