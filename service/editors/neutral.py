"""Neutral sentences: sentences that the base model writes of itself, without any prompt.

A fit keeps the unedited model's predictions on neutral sentences, cut at a random word, so that an edit changes little else. They
need no user data and suit any model. No fit sees the canary, which is a part of them: the share of the canary that a version
continues as before measures the change outside the edits. `neutral_store.py` samples and keeps them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from service.editors.cache import KeyedCache
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, row_from_ids
from service.lm.scoring import decode_greedily, row_losses

_WORD_STARTS = ("Ġ", "▁", " ")  # marks of byte-level and sentencepiece vocabularies on a token that begins a word
_CONTINUATION_TOKENS = 6
CANDIDATES = 3  # sentences drawn for each row of the canary
_CONFIDENT_LOSS = 0.35  # nats a token: the base model gives each token of a continuation a probability of 0.7 or so
_PREFIX_TOKENS = 10
_CHUNK = 16

Value = TypeVar("Value")


@dataclass(frozen=True)
class Sentence:
    """Token ids from BOS on, their text, and the possible cuts: indexes of the first token after a cut."""

    ids: tuple[int, ...]
    text: str
    cuts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class NeutralSentences:
    """Fits may learn from `sentences` and never from `canary`, whose rows end in the base model's own greedy continuation.

    The object also owns the cache of all fits on this base: forward passes that many fits need.
    """

    base: Base
    sentences: tuple[Sentence, ...]
    canary: tuple[Row, ...]
    _cache: KeyedCache = field(default_factory=KeyedCache)

    def get_or_make(self, key: tuple, make: Callable[[], Value], *, keep: int, ahead: bool = False) -> Value:
        """The value of a key in the cache, computed by `make` if it is absent."""
        return self._cache.get_or_make(key, make, keep=keep, ahead=ahead)

    def first(self, count: int) -> "NeutralSentences":
        """The same canary with the first `count` sentences alone, and the same cache."""
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


def keep_confident(
    base: Base, view: View, continuations: list, count: int, yield_to_answers: Callable[[], None] = lambda: None
) -> list:
    """The first `count` continuations that the base model is confident of; if these are too few, the likeliest of the rest too.

    Where two continuations are almost equally likely, any change of the weights flips the greedy one: that is noise.
    """
    rows = [row_from_ids(base, ids, cut) for ids, cut in continuations]
    losses = row_losses(view, rows, None, yield_to_answers).tolist() if rows else []
    order = sorted(range(len(rows)), key=lambda index: max(losses[index], _CONFIDENT_LOSS))  # stable: confident ones in order
    return [continuations[index] for index in sorted(order[:count])]


def confident_rows(
    base: Base, view: View, sentences: Sequence[tuple[int, ...]], count: int, yield_to_answers: Callable[[], None] = lambda: None
) -> list[Row]:
    """At most `count` rows of sentences, made as the canary's are: cut at a random word and continued confidently by `view`.

    The same arguments give the same rows. `yield_to_answers` is called between two passes.
    """
    candidates = list(sentences[: CANDIDATES * count])
    generator = torch.Generator().manual_seed(0)
    continuations: list = []
    for start in range(0, len(candidates), _CHUNK):
        continuations += continue_sentences(base, view, candidates[start : start + _CHUNK], generator)
        yield_to_answers()
    return [row_from_ids(base, ids, cut) for ids, cut in keep_confident(base, view, continuations, count, yield_to_answers)]


def continue_sentences(
    base: Base,
    view: View,
    sentences: Sequence[tuple[int, ...]],
    generator: torch.Generator,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list:
    """Each sentence cut at a random word and continued greedily by the base model: [ids, cut] of each."""
    starts = []
    for ids in sentences:
        cuts = cuts_of(base, ids)
        starts.append(ids[: cuts[int(torch.randint(len(cuts), (), generator=generator))]])
    answers = (
        decode_greedily(view, None, starts, max_new_tokens=_CONTINUATION_TOKENS, yield_to_answers=yield_to_answers)
        if starts
        else []
    )
    return [[[*start, *answer], len(start)] for start, answer in zip(starts, answers, strict=True) if answer]


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


def make_sentence(base: Base, ids: Sequence[int]) -> Sentence:
    """A sentence of the base model from its ids."""
    return Sentence(tuple(ids), base.tokenizer.decode(list(ids), skip_special_tokens=True), cuts_of(base, ids))
