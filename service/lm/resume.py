"""The cached step: what an edit cannot change is computed once, and every step of a fit runs only the rest. Exact.

BaFT leaves alone every token before the last few of the prompt and every block up to the first one intervened on. So a row is
prepared once: keys and values of its *prefix* in the upper blocks, and the state of its *suffix* behind that block. LocFT-BF
leaves alone every block below the tuned one, so there whole sequences are prepared up to it.

Columns: the prefix is padded on its left and the suffix on its right, so that they meet and distances between columns are
distances between tokens, which sliding windows need. The model's own forward builds masks and rotary angles.
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
from service.lm.overlay import Call, Recording, View, call_context, intervene, move_interventions, run_with_parameters
from service.lm.prompts import LAST_PROMPT_TOKENS, Batch, Row, collate


@dataclass(frozen=True, eq=False)
class PrefilledRows:
    """Rows prepared up to the output of block `first_block`. P prefix columns, S suffix columns, H heads."""

    first_block: int
    suffix: Batch  # (B, S), padded on the right
    entering: Tensor  # (B, S, D): the output of block `first_block`, without intervention
    prefix: Tensor  # (B, P) bool: not padding
    keys: Mapping[int, Tensor]  # by block above `first_block`: (B, H, P, ·), padded on the left
    values: Mapping[int, Tensor]

    def __len__(self) -> int:
        return self.prefix.shape[0]

    @property
    def positions(self) -> Tensor:
        """(B, S) bool: suffix columns that are intervened on."""
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
            entering=self.entering[index, :width],
            prefix=prefix[:, first:],
            keys={block: tensor[index, :, first:] for block, tensor in self.keys.items()},
            values={block: tensor[index, :, first:] for block, tensor in self.values.items()},
        )


@dataclass(frozen=True, eq=False)
class ResumeOutput:
    """What rows say under interventions, at the N positions that predict target tokens (row-major)."""

    final: Tensor  # (N, D) behind the final norm
    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    row_of: Tensor  # (N,)
    positions: Tensor  # (B, S) bool: where gate weights count
    recording: Recording  # .weights[block]: (B, S, R), if recorded


@dataclass(frozen=True, eq=False)
class BlockInputs:
    """Whole sequences prepared up to the input of one block, less the last token of each: nothing is predicted from it."""

    block: int
    batch: Batch  # (B, T), padded on the right; column T - 1 holds nothing but last tokens
    entering: Tensor  # (B, T - 1, D), zero or what is never looked at where a row has no next token

    def __len__(self) -> int:
        return self.entering.shape[0]

    def select(self, rows: Sequence[int]) -> "BlockInputs":
        """The chosen rows, in the order given, without columns that none of them uses."""
        index = torch.tensor(list(rows), device=self.entering.device)
        batch = self.batch.select(index)
        width = _longest(batch.attention)
        return BlockInputs(self.block, batch.narrow(width), self.entering[index, : width - 1])


def prefill(
    on: View, rows: Sequence[Row], *, first_block: int, last: int = LAST_PROMPT_TOKENS, max_batch: int = 64
) -> PrefilledRows:
    """Prepares rows for interventions at block `first_block` and above. No gradients; one forward pass per `max_batch` rows."""
    parts = [_prefill(on, rows[start : start + max_batch], first_block, last) for start in range(0, len(rows), max_batch)]
    return concatenate(parts)


def resume(
    on: View, prefilled: PrefilledRows, interventions: Mapping[int, Intervention], *, record: bool = False
) -> ResumeOutput:
    """The blocks above the first over the suffix columns; equal to a plain forward pass, gradients of interventions included."""
    if interventions and min(interventions) < prefilled.first_block:
        raise Refused("The rows were prepared for interventions at higher blocks.", field="first_block")
    call = Call(
        interventions=move_interventions(on, interventions),
        mask=prefilled.positions,
        record=record,
        keep=prefilled.suffix.predicting,
        start=prefilled.first_block + 1,
    )
    call = replace(call, entering=intervene(call, prefilled.first_block, prefilled.entering))
    attention = torch.cat([prefilled.prefix, prefilled.suffix.attention], dim=1)  # (B, P + S)
    with call_context(call) as recording:
        logits = on.model(
            inputs_embeds=prefilled.entering,  # only its shape counts: the blocks that would read it are skipped
            attention_mask=attention.long(),
            position_ids=_counted(attention)[:, prefilled.prefix.shape[1] :],
            past_key_values=_cache(prefilled, on.anatomy.depth),
            use_cache=False,
        ).logits[0]
    assert recording.final is not None
    suffix = prefilled.suffix
    return ResumeOutput(recording.final, logits, suffix.labels, suffix.row_of, suffix.positions, recording)


def concatenate(parts: Sequence[PrefilledRows]) -> PrefilledRows:
    """Rows prepared apart, for the same block, as one batch."""
    if len(parts) == 1:
        return parts[0]
    before = max(part.prefix.shape[1] for part in parts)
    width = max(part.entering.shape[1] for part in parts)

    def left(tensor: Tensor) -> Tensor:
        return pad(tensor, (0, 0, before - tensor.shape[2], 0))

    return PrefilledRows(
        first_block=parts[0].first_block,
        suffix=Batch.stacked([part.suffix.widen(width) for part in parts]),
        entering=torch.cat([pad(part.entering, (0, 0, 0, width - part.entering.shape[1])) for part in parts]),
        prefix=torch.cat([pad(part.prefix, (before - part.prefix.shape[1], 0)) for part in parts]),
        keys={block: torch.cat([left(part.keys[block]) for part in parts]) for block in parts[0].keys},
        values={block: torch.cat([left(part.values[block]) for part in parts]) for block in parts[0].values},
    )


def compute_block_inputs(
    on: View, rows: Sequence[Row], *, block: int, last: int = LAST_PROMPT_TOKENS, max_batch: int = 64
) -> BlockInputs:
    """Prepares rows of at least two tokens up to the input of `block`, which is not run. No gradients."""
    parts = []
    for start in range(0, len(rows), max_batch):
        batch = collate(on.base, rows[start : start + max_batch], last=last)
        parts.append((batch, _entering(on, _followed(batch), block, None)))
    width = max(batch.ids.shape[1] for batch, _ in parts)
    entering = torch.cat([pad(tensor, (0, 0, 0, width - 1 - tensor.shape[1])) for _, tensor in parts])
    return BlockInputs(block, Batch.stacked([batch.widen(width) for batch, _ in parts]), entering)


def run_from(
    on: View, inputs: BlockInputs, *, parameters: Mapping[str, Tensor] | None = None, recording: Recording | None = None
) -> Tensor:
    """Predictions (N, V) of the rows' target tokens by the blocks from `inputs.block` on. `recording` is filled if given.

    `parameters` stand in the place of the view's own, by name and in its dtype, and gradients flow to them; then the view must
    be one that nobody else uses.
    """
    batch = _followed(inputs.batch)
    call = Call(
        keep=inputs.batch.targets[:, 1:],  # those before the target tokens
        start=inputs.block,
        entering=inputs.entering,
        sparing=True,
        recording=recording or Recording(),
    )
    with call_context(call):
        return run_with_parameters(
            on,
            parameters or {},
            inputs_embeds=inputs.entering,
            attention_mask=batch.attention.long(),
            position_ids=batch.position_ids,
            use_cache=False,
        ).logits[0]


def _followed(batch: Batch) -> Batch:
    """What goes through the model of rows padded on the right: the tokens that another one follows."""
    return replace(batch.narrow(batch.ids.shape[1] - 1), attention=batch.attention[:, 1:])


def _prefill(on: View, rows: Sequence[Row], first_block: int, last: int) -> PrefilledRows:
    starts = [min(row.first_position(last), row.prompt_length - 1) for row in rows]
    before = max(starts)
    width = before + max(len(row.ids) - start for row, start in zip(rows, starts, strict=True))
    whole = collate(on.base, rows, last=last, lead=[before - start for start in starts], width=width)
    cache = DynamicCache()  # without a configuration: every layer keeps all columns, sliding ones too
    entering = _entering(on, whole, first_block + 1, cache)
    above = range(first_block + 1, on.anatomy.depth)
    return PrefilledRows(
        first_block=first_block,
        suffix=whole.narrow(width - before, start=before),
        entering=entering[:, before:],
        prefix=whole.attention[:, :before],
        keys={block: cache.layers[block].keys[:, :, :before].clone() for block in above},  # a clone frees the rest
        values={block: cache.layers[block].values[:, :, :before].clone() for block in above},
    )


@torch.no_grad()
def _entering(on: View, batch: Batch, block: int, cache: DynamicCache | None) -> Tensor:
    stop = block if cache is None else None  # a cache wants the keys and values of the blocks above
    with call_context(Call(watch=frozenset({block}), stop=stop)) as recording:
        on.anatomy.decoder(
            input_ids=batch.ids,
            attention_mask=batch.attention.long(),
            position_ids=batch.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return recording.entering[block]


def _cache(prefilled: PrefilledRows, depth: int) -> DynamicCache | None:
    """A cache over the stored tensors, fresh for each step: a step appends by making new tensors, so the stored ones stay."""
    if prefilled.prefix.shape[1] == 0:
        return None
    # Models ask the lowest layer how long the past is; skipped layers hold that length and nothing else.
    unused = prefilled.entering.new_zeros(1, 1, 1, 1).expand(*prefilled.prefix.shape, 1, 1).transpose(1, 2)  # (B, 1, P, 1)
    cache = DynamicCache()
    for block in range(depth):
        cache.layers.append(_layer(prefilled.keys.get(block, unused), prefilled.values.get(block, unused)))
    return cache


def _layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def _counted(attention: Tensor) -> Tensor:
    return (attention.long().cumsum(-1) - 1).clamp(min=0)


def _longest(mask: Tensor) -> int:
    return int(mask.sum(-1).max()) if mask.numel() else 0
