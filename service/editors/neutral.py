"""Neutral sentences: sentences that the base model writes of itself, without any prompt.

A fit keeps the unedited model's predictions on neutral sentences, cut at a random word, so that an edit changes little else. They
need no user data and suit any model. No fit sees the held-out ones: they measure the change outside the edits. `neutral_store.py`
samples and keeps them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from service.editors.cache import KeyedCache
from service.lm.base import Base
from service.lm.prompts import Row, row_from_ids

_WORD_STARTS = ("Ġ", "▁", " ")  # marks of byte-level and sentencepiece vocabularies on a token that begins a word
_PREFIX_TOKENS = 10
_OUTPUT_TOKENS = 10  # of a held-out sentence

Value = TypeVar("Value")


@dataclass(frozen=True)
class Sentence:
    """Token ids from BOS on, their text, and the possible cuts: indexes of the first token after a cut."""

    ids: tuple[int, ...]
    text: str
    cuts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class NeutralSentences:
    """Fits may learn from `sentences` and never from `held_out`.

    The object also owns the cache of all fits on this base: forward passes that many fits need.
    """

    base: Base
    sentences: tuple[Sentence, ...]
    held_out: tuple[Sentence, ...]
    _cache: KeyedCache = field(default_factory=KeyedCache)

    def get_or_make(self, key: tuple, make: Callable[[], Value], *, keep: int, ahead: bool = False) -> Value:
        """The value of a key in the cache, computed by `make` if it is absent."""
        return self._cache.get_or_make(key, make, keep=keep, ahead=ahead)

    def first(self, count: int) -> "NeutralSentences":
        """The same held-out sentences with the first `count` sentences alone, and the same cache."""
        return replace(self, sentences=self.sentences[:count])

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        *,
        mentions_edit: Callable[[str], bool] | None = None,
        last_words: int = 0,
    ) -> list[Row]:
        """Up to `count` sentences for which `mentions_edit` is false, each cut at a random word.

        With `last_words`, the cut is at one of so many last words: by then a sentence usually states a fact.
        """
        order = torch.randperm(len(self.sentences), generator=generator).tolist()
        rows: list[Row] = []
        for index in order:
            if len(rows) == count:
                break
            sentence = self.sentences[index]
            if mentions_edit is None or not mentions_edit(sentence.text):
                cuts = sentence.cuts[-last_words:]
                cut = cuts[int(torch.randint(len(cuts), (), generator=generator))]
                rows.append(row_from_ids(self.base, sentence.ids, cut))
        return rows

    def prefixes(self, count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """Starts of sentences, without BOS and EOS: unrelated text to put before a prompt."""
        special = {*self.base.eos_ids, self.base.bos_id}
        rows = self.draw(count, generator)
        return [tuple(token for token in row.ids if token not in special)[:_PREFIX_TOKENS] for row in rows]


def cuts_of(base: Base, ids: Sequence[int]) -> tuple[int, ...]:
    """The possible cuts of a sentence: before a token that begins a word, with at least one token of text on either side.

    If the vocabulary marks no word starts, every token may begin a word.
    """
    first = 2 if base.bos_id is not None and ids and ids[0] == base.bos_id else 1
    last = len(ids) - 1 if ids and ids[-1] in base.eos_ids else len(ids)
    indexes = range(first, last)
    tokens = base.tokenizer.convert_ids_to_tokens(list(ids))
    word_starts = tuple(index for index in indexes if str(tokens[index]).startswith(_WORD_STARTS))
    return word_starts or tuple(indexes)


def cut_rows(base: Base, sentences: Sequence[Sentence]) -> list[Row]:
    """Each sentence as a prompt and its last tokens as output, on which BaFT acts; the output begins with a word."""
    return [row_from_ids(base, sentence.ids, _late_cut(sentence)) for sentence in sentences]


def _late_cut(sentence: Sentence) -> int:
    wanted = len(sentence.ids) - _OUTPUT_TOKENS
    return min(sentence.cuts, key=lambda cut: (abs(cut - wanted), cut))


def make_sentence(base: Base, ids: Sequence[int]) -> Sentence:
    """A sentence of the base model from its ids."""
    return Sentence(tuple(ids), base.tokenizer.decode(list(ids), skip_special_tokens=True), cuts_of(base, ids))
