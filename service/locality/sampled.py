"""Known answers sampled from the base model itself, where too few questions are given: how it goes on in its own sentences.

A sentence is cut at a word. The base model must be sure of the next tokens, and give the same ones with other text before the
sentence.
"""

from collections.abc import Sequence

import torch

from service.editors.neutral import Sentence
from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, row_from_ids
from service.lm.scoring import decode_greedily, greedy_matches, row_losses
from service.lm.tokenizing import decode_answer
from service.locality.known import ASKED_AT_ONCE, CONFIDENT_LOSS
from service.locality.questions import KnownAnswer

CONTEXTS = 2  # other sentences whose start is put before a sentence
CONTEXT_TOKENS = 12
NEXT_TOKENS = 3
_SEED = 0


def sample_known(view: View, sentences: Sequence[Sentence], hooks: Hooks, *, most: int) -> list[KnownAnswer]:
    """At most `most` continuations of sentences, one a sentence. The same arguments give the same ones.

    Raises FitCancelled if `hooks` say so.
    """
    generator = torch.Generator().manual_seed(_SEED)
    known: list[KnownAnswer] = []
    for start in range(0, len(sentences), ASKED_AT_ONCE):
        if len(known) >= most:
            break
        starts = [_cut(sentence, generator) for sentence in sentences[start : start + ASKED_AT_ONCE]]
        rows = _keep_in_contexts(view, _keep_confident(view, _continue(view, starts, hooks), hooks), sentences, hooks)
        known += [KnownAnswer(row, decode_answer(view.base, row.target_ids)) for row in rows]
    return known[:most]


def _cut(sentence: Sentence, generator: torch.Generator) -> tuple[int, ...]:
    return sentence.ids[: sentence.cuts[int(torch.randint(len(sentence.cuts), (), generator=generator))]]


def _continue(view: View, starts: Sequence[tuple[int, ...]], hooks: Hooks) -> list[Row]:
    base = view.base
    written = decode_greedily(view, None, starts, max_new_tokens=NEXT_TOKENS, yield_to_answers=hooks.begin_step)
    texts = [tuple(token for token in ids if token not in base.eos_ids) for ids in written]
    return [row_from_ids(base, (*start, *text), len(start)) for start, text in zip(starts, texts, strict=True) if text]


def _keep_confident(view: View, rows: Sequence[Row], hooks: Hooks) -> list[Row]:
    losses = row_losses(view, rows, None, hooks.begin_step).tolist() if rows else []
    return [row for row, loss in zip(rows, losses, strict=True) if loss <= CONFIDENT_LOSS]


def _keep_in_contexts(view: View, rows: Sequence[Row], sentences: Sequence[Sentence], hooks: Hooks) -> list[Row]:
    """Those that go on in the same way behind the start of other sentences."""
    behind = [
        _put_behind(view.base, row, sentences[(number + turn) % len(sentences)])
        for turn in range(1, CONTEXTS + 1)
        for number, row in enumerate(rows)
    ]
    hooks.begin_step()
    matches = greedy_matches(view, behind, None) if behind else []
    return [row for number, row in enumerate(rows) if all(matches[number :: len(rows)])]


def _put_behind(base: Base, row: Row, sentence: Sentence) -> Row:
    """The row behind the start of a sentence; one start token stands before both."""
    own = row.ids[1:] if row.has_bos else row.ids
    context = sentence.ids[:CONTEXT_TOKENS]
    ids = (*context, *own)
    return row_from_ids(base, ids, len(ids) - len(row.target_ids)) if len(ids) <= base.context_length else row
