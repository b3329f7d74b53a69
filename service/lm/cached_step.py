"""The cached step: states that an edit cannot change are computed once, and every step of a fit computes the others. Exact.

BaFT changes no state before the last few prompt tokens, and none below the first intervened block. So a row is prefilled once:
keys and values of its *prefix* in the upper blocks, and the state of its *suffix* behind that block. LocFT-BF changes no state
below the tuned block, so whole sequences are computed once up to its input.

Columns: the prefix is padded on the left and the suffix on the right. So they meet, and distances between columns are distances
between tokens, as sliding windows need. The model's own forward builds masks and rotary angles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from service.domain.errors import Refused
from service.lm.intervention import Intervention
from service.lm.last_tokens import LastTokens
from service.lm.overlay import Call, Recording, View, call_context, intervene, move_interventions, run_with_parameters
from service.lm.prompts import LAST_PROMPT_TOKENS, Batch, Row, collate


@dataclass(frozen=True, eq=False)
class PrefilledRows:
    """Rows computed up to the output of block `first_block`. P prefix columns, S suffix columns, H attention heads."""

    first_block: int
    suffix: Batch  # (B, S), padded on the right
    hidden: Tensor  # (B, S, D): the output of block `first_block`, without intervention
    prefix: Tensor  # (B, P) bool: not padding
    keys: Mapping[int, Tensor]  # by block above `first_block`: (B, H, P, ·), padded on the left
    values: Mapping[int, Tensor]

    def __len__(self) -> int:
        return self.prefix.shape[0]

    @property
    def positions(self) -> Tensor:
        """(B, S) bool: intervened suffix columns."""
        return self.suffix.positions

    def select(self, rows: Sequence[int]) -> "PrefilledRows":
        """The chosen rows, in the order given (a row may occur twice), without columns that none of them uses."""
        index = torch.tensor(list(rows), device=self.prefix.device)
        prefix, suffix = self.prefix[index], self.suffix.select(index)
        first = prefix.shape[1] - _longest(prefix)
        width = _longest(suffix.attention)
        return replace(
            self,
            suffix=suffix.narrow(width),
            hidden=self.hidden[index, :width],
            prefix=prefix[:, first:],
            keys={block: tensor[index, :, first:] for block, tensor in self.keys.items()},
            values={block: tensor[index, :, first:] for block, tensor in self.values.items()},
        )


@dataclass(frozen=True, eq=False)
class ResumeOutput:
    """The output of rows under interventions, at the N positions that predict target tokens (row-major)."""

    final: Tensor  # (N, D) behind the final norm
    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    row_of: Tensor  # (N,)
    positions: Tensor  # (B, S) bool: intervened positions
    recording: Recording  # .weights[block]: (B, S, R), if recorded


@dataclass(frozen=True, eq=False)
class BlockInputs:
    """Whole sequences computed up to the input of one block, without each last token, which predicts nothing."""

    block: int
    batch: Batch  # (B, T), padded on the right; column T - 1 holds nothing but last tokens
    hidden: Tensor  # (B, T - 1, D); never read where a row has no next token

    def __len__(self) -> int:
        return self.hidden.shape[0]

    def select(self, rows: Sequence[int]) -> "BlockInputs":
        """The chosen rows, in the order given, without columns that none of them uses."""
        index = torch.tensor(list(rows), device=self.hidden.device)
        batch = self.batch.select(index)
        width = _longest(batch.attention)
        return BlockInputs(self.block, batch.narrow(width), self.hidden[index, : width - 1])


def prefill(
    view: View, rows: Sequence[Row], *, first_block: int, last: LastTokens = LAST_PROMPT_TOKENS, max_batch: int = 64
) -> PrefilledRows:
    """Prefill rows for interventions at block `first_block` and above. No gradients; one forward pass per `max_batch` rows."""
    parts = [_prefill(view, rows[start : start + max_batch], first_block, last) for start in range(0, len(rows), max_batch)]
    return concatenate(parts)


def resume(
    view: View, prefilled: PrefilledRows, interventions: Mapping[int, Intervention], *, record: bool = False
) -> ResumeOutput:
    """Run the blocks above `first_block` over the suffixes. Equal to a plain forward pass, gradients of interventions included.

    Raises Refused for an intervention below `first_block`.
    """
    if interventions and min(interventions) < prefilled.first_block:
        raise Refused("The rows were prepared for interventions at higher blocks.", field="first_block")
    call = Call(
        interventions=move_interventions(view, interventions),
        mask=prefilled.positions,
        record=record,
        head_mask=prefilled.suffix.prediction_mask,
        first_block=prefilled.first_block + 1,
    )
    call = replace(call, hidden=intervene(call, prefilled.first_block, prefilled.hidden))
    attention = torch.cat([prefilled.prefix, prefilled.suffix.attention], dim=1)  # (B, P + S)
    with call_context(call) as recording:
        logits = view.model(
            inputs_embeds=prefilled.hidden,  # only the shape matters: the blocks that would read it are skipped
            attention_mask=attention.long(),
            position_ids=_position_ids(attention)[:, prefilled.prefix.shape[1] :],
            past_key_values=_cache(prefilled, view.anatomy.depth),
            use_cache=False,
        ).logits[0]
    assert recording.final is not None
    suffix = prefilled.suffix
    return ResumeOutput(recording.final, logits, suffix.labels, suffix.row_of, suffix.positions, recording)


def concatenate(parts: Sequence[PrefilledRows]) -> PrefilledRows:
    """Separately prefilled rows of one `first_block`, as one batch."""
    if len(parts) == 1:
        return parts[0]
    before = max(part.prefix.shape[1] for part in parts)
    width = max(part.hidden.shape[1] for part in parts)

    def pad_left(tensor: Tensor) -> Tensor:
        return pad(tensor, (0, 0, before - tensor.shape[2], 0))

    return PrefilledRows(
        first_block=parts[0].first_block,
        suffix=Batch.stack([part.suffix.widen(width) for part in parts]),
        hidden=torch.cat([pad(part.hidden, (0, 0, 0, width - part.hidden.shape[1])) for part in parts]),
        prefix=torch.cat([pad(part.prefix, (before - part.prefix.shape[1], 0)) for part in parts]),
        keys={block: torch.cat([pad_left(part.keys[block]) for part in parts]) for block in parts[0].keys},
        values={block: torch.cat([pad_left(part.values[block]) for part in parts]) for block in parts[0].values},
    )


def compute_block_inputs(
    view: View, rows: Sequence[Row], *, block: int, last: LastTokens = LAST_PROMPT_TOKENS, max_batch: int = 64
) -> BlockInputs:
    """Compute the states of rows of at least two tokens up to the input of `block`. No gradients."""
    parts = []
    for start in range(0, len(rows), max_batch):
        batch = collate(view.base, rows[start : start + max_batch], last=last)
        parts.append((batch, _compute_hidden(view, _drop_last_tokens(batch), block, None)))
    width = max(batch.ids.shape[1] for batch, _ in parts)
    hidden = torch.cat([pad(tensor, (0, 0, 0, width - 1 - tensor.shape[1])) for _, tensor in parts])
    return BlockInputs(block, Batch.stack([batch.widen(width) for batch, _ in parts]), hidden)


def run_from(
    view: View, inputs: BlockInputs, *, parameters: Mapping[str, Tensor] | None = None, recording: Recording | None = None
) -> Tensor:
    """Logits (N, V) of the rows' target tokens, by the blocks from `inputs.block` on. A given `recording` is filled.

    `parameters` replace the view's own, by name and in its dtype, and gradients flow to them. With them the view must have no
    other user.
    """
    batch = _drop_last_tokens(inputs.batch)
    call = Call(
        head_mask=inputs.batch.targets[:, 1:],  # the positions before the target tokens
        first_block=inputs.block,
        hidden=inputs.hidden,
        sparse_last_mlp=True,
        recording=recording or Recording(),
    )
    with call_context(call):
        return run_with_parameters(
            view,
            parameters or {},
            inputs_embeds=inputs.hidden,
            attention_mask=batch.attention.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        ).logits[0]


def _drop_last_tokens(batch: Batch) -> Batch:
    """Rows padded on the right, without the last token of each."""
    return replace(batch.narrow(batch.ids.shape[1] - 1), attention=batch.attention[:, 1:])


def _prefill(view: View, rows: Sequence[Row], first_block: int, last: LastTokens) -> PrefilledRows:
    starts = [min(row.first_position(last), row.prompt_length - 1) for row in rows]
    before = max(starts)
    width = before + max(len(row.ids) - start for row, start in zip(rows, starts, strict=True))
    whole = collate(view.base, rows, last=last, offsets=[before - start for start in starts], width=width)
    cache = DynamicCache()  # without a configuration: every layer keeps all columns, sliding ones too
    hidden = _compute_hidden(view, whole, first_block + 1, cache)
    above = range(first_block + 1, view.anatomy.depth)
    return PrefilledRows(
        first_block=first_block,
        suffix=whole.narrow(width - before, start=before),
        hidden=hidden[:, before:],
        prefix=whole.attention[:, :before],
        keys={block: cache.layers[block].keys[:, :, :before].clone() for block in above},  # a clone lets the rest be freed
        values={block: cache.layers[block].values[:, :, :before].clone() for block in above},
    )


@torch.no_grad()
def _compute_hidden(view: View, batch: Batch, block: int, cache: DynamicCache | None) -> Tensor:
    stop_block = block if cache is None else None  # a cache also needs the keys and values of the blocks above
    with call_context(Call(record_hidden=frozenset({block}), stop_block=stop_block)) as recording:
        view.anatomy.decoder(
            input_ids=batch.ids,
            attention_mask=batch.attention.long(),
            position_ids=batch.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return recording.hidden[block]


def _cache(prefilled: PrefilledRows, depth: int) -> DynamicCache | None:
    """A new cache over the stored tensors, for one step. Appending makes new tensors, so the stored ones stay unchanged."""
    if prefilled.prefix.shape[1] == 0:
        return None
    # Models read the length of the past from the lowest layer. Skipped layers have this length and no data.
    unused = prefilled.hidden.new_zeros(1, 1, 1, 1).expand(*prefilled.prefix.shape, 1, 1).transpose(1, 2)  # (B, 1, P, 1)
    cache = DynamicCache()
    for block in range(depth):
        cache.layers.append(_layer(prefilled.keys.get(block, unused), prefilled.values.get(block, unused)))
    return cache


def _layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def _position_ids(attention: Tensor) -> Tensor:
    return (attention.long().cumsum(-1) - 1).clamp(min=0)


def _longest(mask: Tensor) -> int:
    return int(mask.sum(-1).max()) if mask.numel() else 0
