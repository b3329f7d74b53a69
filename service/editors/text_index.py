"""Many texts by their words, so that a scope finds those that it may cover without reading each of them."""

from collections.abc import Mapping, Sequence

from service.domain.writing_systems import SINGLE_CHARACTER_WORDS
from service.lm.scope import Scope, split_words


class TextIndex:
    """Texts by their words. A text is known by a key alone: the index keeps words, and of no text the order of its words."""

    def __init__(self) -> None:
        self._keys_by_word: dict[str, list[int]] = {}

    def add(self, key: int, text: str) -> None:
        """Add a text. Several texts may have one key."""
        words = split_words(text, SINGLE_CHARACTER_WORDS)
        for word in {*words.written, *words.punctuation}:
            self._keys_by_word.setdefault(word, []).append(key)

    def find(self, scope: Scope) -> set[int]:
        """The keys of the texts that a scope may cover: of all that it covers, and of some more.

        The time grows with the number of different words, and with the texts that hold the rarest words of the scope.
        """
        written: dict[str, list[str]] = {}
        for word in self._keys_by_word:
            for meant in scope.find_meant(word):
                written.setdefault(meant, []).append(word)
        found: set[int] = set()
        for needed in scope.find_needed():
            found |= min((self._keys_of(written, words) for words in needed), key=len, default=set())
        return found

    def _keys_of(self, written: Mapping[str, Sequence[str]], words: Sequence[str]) -> set[int]:
        """The keys of the texts that hold one of `words`, in any form."""
        return {key for word in words for form in written.get(word, ()) for key in self._keys_by_word[form]}
