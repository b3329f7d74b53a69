"""Rows prefilled once for many steps: as one batch, or in several batches of rows of like length.

Several batches avoid padding where one long row would widen many short rows. The layout changes results by rounding alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.editors.protocol import Hooks
from service.lm.cached_step import PrefilledRows, concatenate, prefill
from service.lm.last_tokens import LastTokens
from service.lm.overlay import View
from service.lm.prompts import Row

TOKENS_TOGETHER = 65_536  # of one batch, padding included: 0.5 GB of keys and values with the embedded model


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """Batches of rows; `order[i]` is the position of row i when the batches are laid end to end."""

    batches: tuple[PrefilledRows, ...]
    order: tuple[int, ...] = ()

    def select(self, rows: Sequence[int]) -> PrefilledRows:
        """The chosen rows, in the given order, without columns that none of them uses."""
        if len(self.batches) == 1:
            return self.batches[0].select([self.order[row] for row in rows])
        positions = [self.order[row] for row in rows]
        parts: list[PrefilledRows] = []
        index_of: dict[int, int] = {}  # position: its index among the concatenated parts
        first = 0
        for batch in self.batches:
            in_batch = sorted({position for position in positions if first <= position < first + len(batch)})
            if in_batch:
                index_of |= {position: len(index_of) + number for number, position in enumerate(in_batch)}
                parts.append(batch.select([position - first for position in in_batch]))
            first += len(batch)
        return concatenate(parts).select([index_of[position] for position in positions])

    def prompt_states(self) -> Tensor:
        """(rows, D): each row's mean hidden state at the intervened prompt positions."""
        if not self.batches:
            return torch.zeros(0, 0)
        states = torch.cat([_prompt_states(batch) for batch in self.batches])
        return states if len(self.batches) == 1 else states[list(self.order)]


def prepare_rows(view: View, rows: Sequence[Row], *, first_block: int, last: LastTokens, hooks: Hooks) -> PreparedRows:
    """Prefill at least one row, in parts that give way between them."""
    if len(rows) * max(len(row) for row in rows) <= TOKENS_TOGETHER:
        whole = concatenate([prefill(view, part, first_block=first_block, last=last) for part in hooks.split(rows, len)])
        return PreparedRows((whole,), tuple(range(len(rows))))
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    parts = hooks.split([rows[index] for index in by_length], len)
    batches = [prefill(view, part, first_block=first_block, last=last) for part in parts]
    order = {row: position for position, row in enumerate(by_length)}
    return PreparedRows(tuple(batches), tuple(order[row] for row in range(len(rows))))


def join_rows(parts: Sequence[PreparedRows]) -> PreparedRows:
    """The rows of all parts, in order; as one batch if each part is one batch and they are small enough together."""
    batches = [batch for part in parts for batch in part.batches]
    order: list[int] = []
    for part in parts:
        order += [len(order) + position for position in part.order]
    if len(batches) > 1 and len(batches) == len(parts) and _token_count(batches) <= TOKENS_TOGETHER:
        batches = [concatenate(batches)]
    return PreparedRows(tuple(batches), tuple(order))


def _token_count(batches: Sequence[PrefilledRows]) -> int:
    """Tokens of all rows as one batch, padding included."""
    before = max(batch.prefix.shape[1] for batch in batches)
    width = max(batch.hidden.shape[1] for batch in batches)
    return sum(len(batch) for batch in batches) * (before + width)


def _prompt_states(batch: PrefilledRows) -> Tensor:
    mask = (batch.positions & ~batch.suffix.targets).unsqueeze(-1).to(batch.hidden.dtype)  # (B, S, 1)
    return ((batch.hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).float()
