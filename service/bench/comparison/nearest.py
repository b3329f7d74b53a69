"""The edit that is nearest to a question, as a plain retrieval finds it: by the name of its subject, else by words."""

import re
from collections import Counter
from collections.abc import Sequence
from math import log, sqrt

from service.bench.ground.asking import Ask
from service.bench.ground.contenders import is_named, read_whole
from service.bench.ground.records import GroundEdit

LEAST_LIKE = 0.5  # cosine; under it no edit is near enough. Set before any run, not tuned

Words = frozenset[str]


class NearestEdit:
    """Edits that can be searched. A subject counts where the edit was posted with it.

    Two texts are alike by the cosine between their sets of words. A word that k of n edits have weighs log(1 + n / k).
    """

    def __init__(self, edits: Sequence[GroundEdit]) -> None:
        self._edits = edits
        self._words = [_words_of(edit.ask.text) for edit in edits]
        self._counts = Counter(word for words in self._words for word in words)

    def find(self, ask: Ask) -> GroundEdit | None:
        """The nearest edit: of those whose subject is named in any turn, else of those alike enough, the one most alike; the
        later one of two.
        """
        text = read_whole(ask)
        asked = _words_of(text)
        likenesses = [self._likeness(asked, words) for words in self._words]
        named = [place for place, edit in enumerate(self._edits) if edit.names_subject and is_named(text, edit.subject)]
        possible = named or [place for place, likeness in enumerate(likenesses) if likeness >= LEAST_LIKE]
        return self._edits[max(possible, key=lambda place: (likenesses[place], place))] if possible else None

    def _likeness(self, left: Words, right: Words) -> float:
        norm = sqrt(self._weigh(left) * self._weigh(right))
        return self._weigh(left & right) / norm if norm else 0.0

    def _weigh(self, words: Words) -> float:
        """The sum of the squared weights of words."""
        return sum(log(1 + len(self._edits) / max(self._counts[word], 1)) ** 2 for word in words)


def _words_of(text: str) -> Words:
    return frozenset(re.findall(r"\w+", text.casefold()))
