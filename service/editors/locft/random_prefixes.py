"""Random beginnings for prompts, as MEMIT makes them: an edit should hold whatever stands before its prompt.

The base model goes on from a few common words for some tokens; each text and a full stop then stand before every prompt.
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
_TOKENS = 10  # of a whole beginning, its first word included
_LIKELIEST = 5  # tokens that the next one is drawn from


def sample_beginnings(on: View, count: int, generator: torch.Generator) -> tuple[str, ...]:
    """`count` beginnings, each with its full stop and space. `on` is a view of the base without any edit."""
    if count == 0:
        return ()
    starts = [encode_prompt(on.base, _STARTS[number % len(_STARTS)]) for number in range(count)]
    texts = [decode_ids(on.base, ids) for ids in _continued(on, starts, generator)]
    return tuple(" ".join(text.replace("{", " ").replace("}", " ").split()) + ". " for text in texts)


def _continued(on: View, starts: Sequence[tuple[int, ...]], generator: torch.Generator) -> list[list[int]]:
    decoding, texts = Decoding(on, None, starts), [list(start) for start in starts]
    while min(len(text) for text in texts) < _TOKENS:
        tokens = sample_tokens(of_the_likeliest(on.base, decoding.logits), torch.rand(len(texts), generator=generator))
        for text, token in zip(texts, tokens.tolist(), strict=True):
            text.append(token)
        decoding.feed(tokens)
    return [text[:_TOKENS] for text in texts]


def of_the_likeliest(base: Base, logits: Tensor) -> Tensor:
    """Logits (B, V) with all but the five likeliest tokens ruled out, and control tokens before that."""
    text = logits.float().clone()
    text[:, sorted({*base.control_ids, *base.eos_ids})] = float("-inf")
    least = text.topk(min(_LIKELIEST, text.shape[-1]), dim=-1).values[:, -1:]
    return text.masked_fill(text < least, float("-inf"))
