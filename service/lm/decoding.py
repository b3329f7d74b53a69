"""Several prompts decoded side by side, one token each a step, with their keys and values kept. Knows no policy of choosing.

Rows are padded on the left, so the last tokens of all prompts are one range of columns and rows may leave, or join, between
steps. Keys and values belong to these rows under these interventions and are used for nothing else.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from service.lm.intervention import Adapter
from service.lm.overlay import Call, View, call_context, move_interventions
from service.lm.prompts import LAST_PROMPT_TOKENS, collate, prompt_row


class Decoding:
    """The rows in flight on one view under one adapter. `logits` (B, V) are for each row's next token."""

    @torch.no_grad()
    def __init__(self, on: View, adapter: Adapter | None, prompts: Sequence[Sequence[int]]) -> None:
        self._view = on
        self._interventions = move_interventions(on, adapter.interventions if adapter else {})
        self._cache = DynamicCache()  # without a configuration: every layer keeps all columns, sliding ones too
        rows = [prompt_row(on.base, prompt) for prompt in prompts]
        batch = collate(on.base, rows, last=adapter.last if adapter else LAST_PROMPT_TOKENS, side="left")
        self._attention = batch.attention  # (B, T)
        self.logits = self._run(batch.ids, batch.positions, batch.position_ids)

    def __len__(self) -> int:
        return self._attention.shape[0]

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> None:
        """One more token (B,) for every row; all of them are output, so all are intervened on."""
        column = tokens.to(self._attention.device)[:, None]
        lengths = self._attention.sum(-1, keepdim=True)  # (B, 1), the position of the new token
        everywhere = torch.ones_like(column, dtype=torch.bool)
        self._attention = torch.cat([self._attention, everywhere], dim=1)
        self.logits = self._run(column, everywhere, lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, and the columns that only they needed."""
        index = torch.tensor(list(rows), device=self._attention.device)
        attention = self._attention[index]
        first = attention.shape[1] - int(attention.sum(-1).max())
        self._attention, self.logits = attention[:, first:], self.logits[index]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[index, :, first:], layer.values[index, :, first:]

    def join(self, other: "Decoding") -> None:
        """Takes the rows of `other`, which must be of the same view and adapter; they come after its own."""
        width = max(self._attention.shape[1], other._attention.shape[1])
        parts = (self, other)
        attention = [pad(part._attention, (width - part._attention.shape[1], 0)) for part in parts]
        for own, joining in zip(self._cache.layers, other._cache.layers, strict=True):
            own.keys = _stacked(own.keys, joining.keys, width)
            own.values = _stacked(own.values, joining.values, width)
        self._attention = torch.cat(attention)
        self.logits = torch.cat([self.logits, other.logits])

    def _run(self, ids: Tensor, positions: Tensor, position_ids: Tensor) -> Tensor:
        last_column = torch.zeros_like(positions)
        last_column[:, -1] = True
        with call_context(Call(interventions=self._interventions, mask=positions, keep=last_column)):
            return self._view.model(
                input_ids=ids,
                attention_mask=self._attention.long(),
                position_ids=position_ids,
                past_key_values=self._cache,
                use_cache=True,
            ).logits[0]


def _stacked(first: Tensor, second: Tensor, width: int) -> Tensor:
    return torch.cat([pad(tensor, (0, 0, width - tensor.shape[2], 0)) for tensor in (first, second)])
