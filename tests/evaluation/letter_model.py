"""A random model whose answers are texts, for tests of metrics, with prompts that it answers."""

from functools import lru_cache

import torch

from service.evaluation.metrics.outcomes import Reference
from service.lm.base import Base, build_base
from service.lm.overlay import make_view
from tests.builders import make_model, make_tokenizer

# They end in a script without spaces, so that an answer follows without one, as the model gives it.
PROMPTS = ("Vienna 在", "The 是", "a b c 是", "Is it so 嗎", "Linz 在", "Here we are 在", "No 是", "What next 是")
LONGEST = 12


@lru_cache(maxsize=1)
def base() -> Base:
    """A random model that answers in letters and often comes to an end: its answers are texts."""
    model, tokenizer = make_model(), make_tokenizer()
    letters = set(tokenizer.convert_tokens_to_ids([*"abcdefghijklmnopqrstuvwxyz"]))
    with torch.no_grad():
        for token, row in enumerate(model.get_output_embeddings().weight):
            row *= 4.0 if token == tokenizer.eos_token_id else float(token in letters)
    return build_base(model, tokenizer)


@lru_cache(maxsize=1)
def reference() -> Reference:
    return Reference(make_view(base()), longest_answer=LONGEST)
