"""Search of wordings in a text: the same words in the same order, whatever punctuation is around and between them."""

import re
from collections import deque
from collections.abc import Iterable
from enum import IntEnum

from service.domain.writing_systems import SINGLE_CHARACTER_WORDS

_ALONE = "".join(f"{chr(low)}-{chr(high)}" for low, high in SINGLE_CHARACTER_WORDS)  # each of these counts as a word
WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
FEWEST_WORDS = 4  # shorter wordings occur in many texts, so among other words they prove nothing


class Match(IntEnum):
    """The result of a search. `PERHAPS`: the text has a short wording among other words."""

    NO = 0
    PERHAPS = 1
    YES = 2


class Wordings:
    """An automaton that searches many wordings in one pass (Aho and Corasick 1975).

    A text of n words takes about n steps, however many wordings there are. Where the next word does not continue the current
    node, the search falls back to the longest suffix of its words that begins a wording.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # a tree: from a node by a word to the next node
        self._depth = [0]  # words that lead to a node
        self._back = [0]  # the fallback: the node of the longest suffix of a node's words that begins a wording too
        self._ends: set[int] = set()  # nodes at which a wording ends
        for text in texts:
            self._add(_words(text))
        self._longest = [0] * len(self._next)  # words of the longest wording that is a suffix of a node's words
        self._link()

    def match(self, text: str) -> Match:
        """`YES` if the text is one of the wordings, or contains one of at least FEWEST_WORDS words."""
        words, match, node = _words(text), Match.NO, 0
        for word in words:
            node = self._step(node, word)
            if self._longest[node] >= FEWEST_WORDS:
                return Match.YES
            if self._longest[node]:
                match = Match.PERHAPS
        is_whole = bool(words) and node in self._ends and self._depth[node] == len(words)
        return Match.YES if is_whole else match

    def _step(self, node: int, word: str) -> int:
        while node and word not in self._next[node]:
            node = self._back[node]
        return self._next[node].get(word, 0)

    def _add(self, words: list[str]) -> None:
        node = 0
        for word in words:
            if word not in self._next[node]:
                self._next[node][word] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[node] + 1)
                self._back.append(0)
            node = self._next[node][word]
        if words:
            self._ends.add(node)

    def _link(self) -> None:
        """Set the fallback of every node, in order of depth."""
        queue = deque(self._next[0].values())
        while queue:
            node = queue.popleft()
            back = self._back[node]
            self._longest[node] = self._depth[node] if node in self._ends else self._longest[back]
            for word, further in self._next[node].items():
                self._back[further] = self._step(back, word)
                queue.append(further)


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
