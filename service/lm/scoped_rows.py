"""Rows of a version with an adapter: a row whose prompt is out of the adapter's scope is intervened nowhere.

This is the one place where rows, prompts and scopes meet. Decoding, scoring, evaluation and acceptance all ask it, so that each
of them has the same rows in scope.
"""

from collections.abc import Sequence

from torch import Tensor

from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import LAST_PROMPT_TOKENS, Batch, Row, collate
from service.lm.scope import prompt_text
from service.lm.tokenizing import decode_ids


def acts_on(base: Base, adapter: Adapter, prompt_ids: Sequence[int]) -> bool:
    """Whether an adapter acts on a prompt: it has no scope, or the prompt is in it. The prompt's ids alone decide."""
    return adapter.scope is None or adapter.scope.covers(read_prompt(base, prompt_ids))


def read_prompt(base: Base, prompt_ids: Sequence[int]) -> str:
    """The text that a scope reads in a prompt, all turns of a chat included."""
    return prompt_text(prompt_ids, base.control_ids, lambda ids: decode_ids(base, ids))


def choose_in_scope(base: Base, adapter: Adapter, rows: Sequence[Row]) -> list[int]:
    """The indexes of the rows that an adapter acts on."""
    return [index for index, row in enumerate(rows) if acts_on(base, adapter, row.prompt_ids)]


def collate_in_scope(base: Base, rows: Sequence[Row], adapter: Adapter | None) -> Batch:
    """Rows as one batch, padded on the right, with the positions at which an adapter acts."""
    if adapter is None:
        return collate(base, rows, last=LAST_PROMPT_TOKENS)
    return collate(base, rows, last=[adapter.last if acts_on(base, adapter, row.prompt_ids) else None for row in rows])


def score_targets(view: View, rows: Sequence[Row], adapter: Adapter | None) -> tuple[Batch, Tensor]:
    """Rows of a version as one batch, and the logits (N, V) of their target tokens, in row-major order.

    The logits of a row out of scope are those without an adapter, bit for bit in a batch of the same shape.
    """
    batch = collate_in_scope(view.base, rows, adapter)
    interventions = adapter.interventions if adapter is not None and bool(batch.positions.any()) else None
    return batch, compute_target_logits(view, batch, interventions)
