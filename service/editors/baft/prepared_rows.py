"""Rows prepared for many steps, and where they are kept: as one batch, or, where one long row would widen too many short ones, in
several batches of rows of like length. Which of the two changes no result but by rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.editors.protocol import Hooks
from service.lm.overlay import View
from service.lm.prompts import Row
from service.lm.resume import PrefilledRows, concatenate, prefill

TOKENS_TOGETHER = 65_536  # of one batch, padding included: 0.5 GB of keys and values with the embedded model


@dataclass(frozen=True, eq=False)
class Prepared:
    """Batches of rows; `order[i]` is the place of the i-th row when the batches are counted through."""

    batches: tuple[PrefilledRows, ...]
    order: tuple[int, ...] = ()

    def select(self, rows: Sequence[int]) -> PrefilledRows:
        """The chosen rows, in the order given, without columns that none of them uses."""
        if len(self.batches) == 1:
            return self.batches[0].select([self.order[row] for row in rows])
        wanted = [self.order[row] for row in rows]
        found: list[PrefilledRows] = []
        at: dict[int, int] = {}  # where a row stands among those found
        first = 0
        for batch in self.batches:
            here = sorted({place for place in wanted if first <= place < first + len(batch)})
            if here:
                at |= {place: len(at) + number for number, place in enumerate(here)}
                found.append(batch.select([place - first for place in here]))
            first += len(batch)
        return concatenate(found).select([at[place] for place in wanted])

    def positions(self) -> Tensor:
        """(rows, D): the mean state of each row at the intervened end of its prompt."""
        if not self.batches:
            return torch.zeros(0, 0)
        counted = torch.cat([_mean_ends(batch) for batch in self.batches])
        return counted if len(self.batches) == 1 else counted[list(self.order)]


def prepare(view: View, rows: Sequence[Row], *, first_block: int, last: int, hooks: Hooks) -> Prepared:
    """Prepare rows, at least one, some at a time."""
    if len(rows) * max(len(row) for row in rows) <= TOKENS_TOGETHER:
        whole = concatenate([prefill(view, part, first_block=first_block, last=last) for part in hooks.split(rows, len)])
        return Prepared((whole,), tuple(range(len(rows))))
    by_length = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    batches = [
        prefill(view, part, first_block=first_block, last=last) for part in hooks.split([rows[place] for place in by_length], len)
    ]
    order = {row: place for place, row in enumerate(by_length)}
    return Prepared(tuple(batches), tuple(order[row] for row in range(len(rows))))


def joined(parts: Sequence[Prepared]) -> Prepared:
    """Rows prepared apart, one behind the other; as one batch if they were such and are not too many together."""
    batches = [batch for part in parts for batch in part.batches]
    order: list[int] = []
    for part in parts:
        order += [len(order) + place for place in part.order]
    if len(batches) > 1 and len(batches) == len(parts) and _tokens(batches) <= TOKENS_TOGETHER:
        batches = [concatenate(batches)]
    return Prepared(tuple(batches), tuple(order))


def _tokens(batches: Sequence[PrefilledRows]) -> int:
    """Of all rows as one batch."""
    before = max(batch.prefix.shape[1] for batch in batches)
    width = max(batch.entering.shape[1] for batch in batches)
    return sum(len(batch) for batch in batches) * (before + width)


def _mean_ends(batch: PrefilledRows) -> Tensor:
    ends = (batch.positions & ~batch.suffix.targets).unsqueeze(-1).to(batch.entering.dtype)  # (B, S, 1)
    return ((batch.entering * ends).sum(1) / ends.sum(1).clamp(min=1)).float()
