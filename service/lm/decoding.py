"""Batched decoding with a key-value cache, one token per row and step. Knows no sampling.

Rows are padded on the left, so that all rows end in the last column, and rows may leave or join between steps. Rows may have
different adapters: rows of one adapter are intervened together. A row out of its adapter's scope has no adapter here. Keys and
values belong to these rows under these interventions and have no other use.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from service.lm.intervention import Adapter, Intervention
from service.lm.overlay import AdaptedRows, Call, View, call_context, move_interventions
from service.lm.prompts import LAST_PROMPT_TOKENS, collate, prompt_row
from service.lm.scoped_rows import acts_on


class Decoding:
    """The rows in progress on one view, each under its own adapter or none. `logits` (B, V) are for each row's next token."""

    @torch.no_grad()
    def __init__(
        self,
        view: View,
        adapters: Sequence[Adapter | None],
        prompts: Sequence[Sequence[int]],
        outputs: Sequence[Sequence[int]] | None = None,
        asked: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Compute the rows' prompts, each followed by the tokens that were decoded for it before, if any (`outputs`). `asked` are
        the prompts by which scopes decide, where these are not all of what is read.
        """
        self._view = view
        self._moved: dict[Adapter, dict[int, Intervention]] = {}
        own = [
            adapter if adapter and acts_on(view.base, adapter, prompt) else None
            for adapter, prompt in zip(adapters, asked or prompts, strict=True)
        ]
        self._assign(own)
        self._cache = DynamicCache()  # without a configuration: every layer keeps all columns, sliding ones too
        rows = [prompt_row(view.base, prompt) for prompt in prompts]
        rows = [replace(row, ids=(*row.ids, *output)) for row, output in zip(rows, outputs or [()] * len(rows), strict=True)]
        lasts = [adapter.last if adapter else LAST_PROMPT_TOKENS for adapter in own]
        batch = collate(view.base, rows, last=lasts, side="left")
        self._attention = batch.attention  # (B, T)
        self.logits = self._run(batch.ids, batch.positions, batch.position_ids)

    def __len__(self) -> int:
        return self._attention.shape[0]

    @torch.no_grad()
    def branch(self, endings: Sequence[Sequence[int]]) -> "Decoding":
        """New rows that go on from this decoding's only row, which has no adapter: one with each of `endings`, all of one length,
        behind it. This decoding stays as it is and may be branched again.
        """
        assert self._adapters == [None]
        branched = copy(self)
        branched._assign([None] * len(endings))
        branched._cache = _repeat(self._cache, len(endings))
        ids = torch.tensor([list(ending) for ending in endings], device=self._attention.device)  # (B, T)
        before = self._attention.shape[1]
        branched._attention = torch.ones(ids.shape[0], before + ids.shape[1], dtype=torch.bool, device=ids.device)
        position_ids = torch.arange(before, before + ids.shape[1], device=ids.device).expand_as(ids)
        branched.logits = branched._run(ids, torch.zeros_like(ids, dtype=torch.bool), position_ids)
        return branched

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> None:
        """Append one token (B,) to the rows. Output tokens are always intervened."""
        column = tokens.to(self._attention.device)[:, None]
        lengths = self._attention.sum(-1, keepdim=True)  # (B, 1), the position of the new token
        all_rows = torch.ones_like(column, dtype=torch.bool)
        self._attention = torch.cat([self._attention, all_rows], dim=1)
        self.logits = self._run(column, all_rows, lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and the columns that only dropped rows used."""
        index = torch.tensor(list(rows), device=self._attention.device)
        attention = self._attention[index]
        first = attention.shape[1] - int(attention.sum(-1).max())
        self._attention, self.logits = attention[:, first:], self.logits[index]
        self._assign([self._adapters[row] for row in rows])
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[index, :, first:], layer.values[index, :, first:]

    def join(self, other: "Decoding") -> None:
        """Append the rows of `other`, which must have the same view. Their adapters come along.

        If there is no room for the tensors of both, an exception is raised and each is as before.
        """
        width = max(self._attention.shape[1], other._attention.shape[1])
        attention = torch.cat([pad(part._attention, (width - part._attention.shape[1], 0)) for part in (self, other)])
        logits = torch.cat([self.logits, other.logits])
        layers = list(zip(self._cache.layers, other._cache.layers, strict=True))
        stacked = [(_stack(own.keys, added.keys, width), _stack(own.values, added.values, width)) for own, added in layers]
        for (own, _), (keys, values) in zip(layers, stacked, strict=True):
            own.keys, own.values = keys, values
        self._attention, self.logits = attention, logits
        self._moved |= other._moved
        self._assign([*self._adapters, *other._adapters])

    def _assign(self, adapters: Sequence[Adapter | None]) -> None:
        """Group the rows by adapter. Rows that all have one adapter are not indexed."""
        self._adapters = list(adapters)
        present = dict.fromkeys(adapter for adapter in adapters if adapter)
        self._moved = {adapter: self._moved.get(adapter) or self._move(adapter) for adapter in present}
        self._adapted = [AdaptedRows(self._rows_of(adapter), moved) for adapter, moved in self._moved.items()]
        self._shared = next(iter(self._moved.values())) if len(set(adapters)) == 1 and present else None

    def _move(self, adapter: Adapter) -> dict[int, Intervention]:
        return move_interventions(self._view, adapter.interventions)

    def _rows_of(self, adapter: Adapter) -> Tensor:
        return torch.tensor([row for row, own in enumerate(self._adapters) if own is adapter], device=self._view.base.device)

    def _run(self, ids: Tensor, positions: Tensor, position_ids: Tensor) -> Tensor:
        last_column = torch.zeros_like(positions)
        last_column[:, -1] = True
        adapted = () if self._shared else self._adapted
        with call_context(Call(interventions=self._shared or {}, adapted=adapted, mask=positions, head_mask=last_column)):
            return self._view.model(
                input_ids=ids,
                attention_mask=self._attention.long(),
                position_ids=position_ids,
                past_key_values=self._cache,
                use_cache=True,
            ).logits[0]


def _repeat(cache: DynamicCache, rows: int) -> DynamicCache:
    """A cache of `rows` rows like the only one of `cache`. Appending makes new tensors, so its tensors stay unchanged."""
    repeated = DynamicCache()
    for layer in cache.layers:
        own = DynamicLayer()
        own.lazy_initialization(layer.keys, layer.values)
        own.keys, own.values = (tensor.expand(rows, -1, -1, -1) for tensor in (layer.keys, layer.values))
        repeated.layers.append(own)
    return repeated


def _stack(first: Tensor, second: Tensor, width: int) -> Tensor:
    return torch.cat([pad(tensor, (0, 0, width - tensor.shape[2], 0)) for tensor in (first, second)])
