"""Whether a text holds one of some wordings: the same words in the same order, whatever stands around and between them."""

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum

from service.domain.scripts import STANDING_ALONE

_ALONE = "".join(f"{chr(low)}-{chr(high)}" for low, high in STANDING_ALONE)  # each of these counts as a word
WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
FEWEST = 4  # words: fewer are said of much else, so among other words they prove nothing


class Match(IntEnum):
    """What is known of a text; `PERHAPS` if a short wording stands among other words."""

    NO = 0
    PERHAPS = 1
    YES = 2


class Wordings:
    """Wordings to look for. A text of n words is looked through in about n steps, however many there are."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # a tree: from a node by a word to the next node
        self._ends: set[int] = set()
        for text in texts:
            self._add(_words(text))

    def match(self, text: str) -> Match:
        """Whether a text is one of the wordings, or holds one that is long enough to be told by that."""
        words, found = _words(text), Match.NO
        for start in range(len(words)):
            found = max(found, self._match_at(words, start))
            if found is Match.YES:
                break
        return found

    def _match_at(self, words: list[str], start: int) -> Match:
        node, found = 0, Match.NO
        for place in range(start, len(words)):
            step: Mapping[str, int] = self._next[node]
            if words[place] not in step:
                break
            node = step[words[place]]
            if node in self._ends:
                is_whole = start == 0 and place == len(words) - 1
                if is_whole or place - start + 1 >= FEWEST:
                    return Match.YES
                found = Match.PERHAPS
        return found

    def _add(self, words: list[str]) -> None:
        node = 0
        for word in words:
            if word not in self._next[node]:
                self._next[node][word] = len(self._next)
                self._next.append({})
            node = self._next[node][word]
        if words:
            self._ends.add(node)


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
