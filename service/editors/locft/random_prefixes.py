"""Random prefixes for prompts, as in MEMIT: an edit should hold after any text.

The base model continues a few common words for some tokens. Each text and a full stop are then a prefix of every prompt.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.overlay import View
from service.lm.prompts import encode_prompt
from service.lm.sampling import sample_tokens
from service.lm.tokenizing import decode_ids

_STARTS = ("The", "Therefore", "Because", "I", "You")
_TOKENS = 10  # of a prefix, its first word included
_LIKELIEST = 5  # tokens from which the next one is drawn


def sample_prefixes(view: View, count: int, generator: torch.Generator) -> tuple[str, ...]:
    """`count` prefixes, each with its full stop and space. `view` is a view of the base without any edit."""
    if count == 0:
        return ()
    starts = [encode_prompt(view.base, _STARTS[number % len(_STARTS)]) for number in range(count)]
    texts = [decode_ids(view.base, ids) for ids in _continue(view, starts, generator)]
    return tuple(" ".join(text.replace("{", " ").replace("}", " ").split()) + ". " for text in texts)


def _continue(view: View, starts: Sequence[tuple[int, ...]], generator: torch.Generator) -> list[list[int]]:
    decoding, texts = Decoding(view, [None] * len(starts), starts), [list(start) for start in starts]
    while min(len(text) for text in texts) < _TOKENS:
        tokens = sample_tokens(keep_likeliest(view.base, decoding.logits), torch.rand(len(texts), generator=generator))
        for text, token in zip(texts, tokens.tolist(), strict=True):
            text.append(token)
        decoding.feed(tokens)
    return [text[:_TOKENS] for text in texts]


def keep_likeliest(base: Base, logits: Tensor) -> Tensor:
    """Logits (B, V) with −∞ for all but the five likeliest tokens; control tokens are excluded first."""
    text = logits.float().clone()
    text[:, sorted({*base.control_ids, *base.eos_ids})] = float("-inf")
    least = text.topk(min(_LIKELIEST, text.shape[-1]), dim=-1).values[:, -1:]
    return text.masked_fill(text < least, float("-inf"))
