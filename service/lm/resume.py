"""The cached step: what an edit cannot change is computed once, and every step of a fit runs only the rest. Exact.

BaFT leaves alone every token before the last few of the prompt and every block up to the first one intervened on. So a row is
prepared once: keys and values of its *prefix* in the upper blocks, and the state of its *suffix* behind block `at`. LocFT-BF
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
from service.lm.overlay import Call, Recording, View, calling, intervene, placed, substituted
from service.lm.prompts import LAST, Batch, Row, collate


@dataclass(frozen=True, eq=False)
class Prefilled:
    """Rows prepared up to the output of block `at`. P prefix columns, S suffix columns, H heads."""

    at: int
    suffix: Batch  # (B, S), padded on the right
    entering: Tensor  # (B, S, D): the output of block `at`, without intervention
    prefix: Tensor  # (B, P) bool: not padding
    keys: Mapping[int, Tensor]  # by block above `at`: (B, H, P, ·), padded on the left
    values: Mapping[int, Tensor]

    def __len__(self) -> int:
        return self.prefix.shape[0]

    @property
    def positions(self) -> Tensor:
        """(B, S) bool: suffix columns that are intervened on."""
        return self.suffix.positions

    def select(self, rows: Sequence[int]) -> "Prefilled":
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
class Resumed:
    """What rows say under interventions, at the N positions that predict target tokens (row-major)."""

    final: Tensor  # (N, D) behind the final norm
    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    row_of: Tensor  # (N,)
    positions: Tensor  # (B, S) bool: where gate weights count
    recording: Recording  # .weights[block]: (B, S, R), if recorded


@dataclass(frozen=True, eq=False)
class Inputs:
    """Whole sequences prepared up to the input of one block, less the last token of each: nothing is predicted from it."""

    block: int
    batch: Batch  # (B, T), padded on the right; column T - 1 holds nothing but last tokens
    entering: Tensor  # (B, T - 1, D), zero or what is never looked at where a row has no next token

    def __len__(self) -> int:
        return self.entering.shape[0]

    def select(self, rows: Sequence[int]) -> "Inputs":
        """The chosen rows, in the order given, without columns that none of them uses."""
        index = torch.tensor(list(rows), device=self.entering.device)
        batch = self.batch.select(index)
        width = _longest(batch.attention)
        return Inputs(self.block, batch.narrow(width), self.entering[index, : width - 1])


def prefill(on: View, rows: Sequence[Row], *, at: int, last: int = LAST, max_batch: int = 64) -> Prefilled:
    """Prepares rows for interventions at block `at` and above. No gradients; one forward pass per `max_batch` rows."""
    parts = [_prefill(on, rows[start : start + max_batch], at, last) for start in range(0, len(rows), max_batch)]
    return concatenated(parts)


def resume(on: View, prefilled: Prefilled, interventions: Mapping[int, Intervention], *, record: bool = False) -> Resumed:
    """The blocks above `at` over the suffix columns; equal to a plain forward pass, gradients of interventions included."""
    if interventions and min(interventions) < prefilled.at:
        raise Refused("The rows were prepared for interventions at higher blocks.", field="at")
    call = Call(
        interventions=placed(on, interventions),
        mask=prefilled.positions,
        record=record,
        keep=prefilled.suffix.predicting,
        start=prefilled.at + 1,
    )
    call = replace(call, entering=intervene(call, prefilled.at, prefilled.entering))
    attention = torch.cat([prefilled.prefix, prefilled.suffix.attention], dim=1)  # (B, P + S)
    with calling(call) as recording:
        logits = on.model(
            inputs_embeds=prefilled.entering,  # only its shape counts: the blocks that would read it are skipped
            attention_mask=attention.long(),
            position_ids=_counted(attention)[:, prefilled.prefix.shape[1] :],
            past_key_values=_cache(prefilled, on.anatomy.depth),
            use_cache=False,
        ).logits[0]
    assert recording.final is not None
    suffix = prefilled.suffix
    return Resumed(recording.final, logits, suffix.labels, suffix.row_of, suffix.positions, recording)


def concatenated(parts: Sequence[Prefilled]) -> Prefilled:
    """Rows prepared apart, for the same block, as one batch."""
    if len(parts) == 1:
        return parts[0]
    before = max(part.prefix.shape[1] for part in parts)
    width = max(part.entering.shape[1] for part in parts)

    def left(tensor: Tensor) -> Tensor:
        return pad(tensor, (0, 0, before - tensor.shape[2], 0))

    return Prefilled(
        at=parts[0].at,
        suffix=Batch.stacked([part.suffix.widen(width) for part in parts]),
        entering=torch.cat([pad(part.entering, (0, 0, 0, width - part.entering.shape[1])) for part in parts]),
        prefix=torch.cat([pad(part.prefix, (before - part.prefix.shape[1], 0)) for part in parts]),
        keys={block: torch.cat([left(part.keys[block]) for part in parts]) for block in parts[0].keys},
        values={block: torch.cat([left(part.values[block]) for part in parts]) for block in parts[0].values},
    )


def prefill_inputs(on: View, rows: Sequence[Row], *, block: int, last: int = LAST, max_batch: int = 64) -> Inputs:
    """Prepares rows of at least two tokens up to the input of `block`, which is not run. No gradients."""
    parts = []
    for start in range(0, len(rows), max_batch):
        batch = collate(on.base, rows[start : start + max_batch], last=last)
        parts.append((batch, _entering(on, _followed(batch), block, None)))
    width = max(batch.ids.shape[1] for batch, _ in parts)
    entering = torch.cat([pad(tensor, (0, 0, 0, width - 1 - tensor.shape[1])) for _, tensor in parts])
    return Inputs(block, Batch.stacked([batch.widen(width) for batch, _ in parts]), entering)


def run_from(
    on: View, inputs: Inputs, *, parameters: Mapping[str, Tensor] | None = None, recording: Recording | None = None
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
    with calling(call):
        return substituted(
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


def _prefill(on: View, rows: Sequence[Row], at: int, last: int) -> Prefilled:
    starts = [min(row.first_position(last), row.prompt_length - 1) for row in rows]
    before = max(starts)
    width = before + max(len(row.ids) - start for row, start in zip(rows, starts, strict=True))
    whole = collate(on.base, rows, last=last, lead=[before - start for start in starts], width=width)
    cache = DynamicCache()  # without a configuration: every layer keeps all columns, sliding ones too
    entering = _entering(on, whole, at + 1, cache)
    above = range(at + 1, on.anatomy.depth)
    return Prefilled(
        at=at,
        suffix=whole.narrow(width - before, start=before),
        entering=entering[:, before:],
        prefix=whole.attention[:, :before],
        keys={block: cache.layers[block].keys[:, :, :before].clone() for block in above},  # a clone frees the rest
        values={block: cache.layers[block].values[:, :, :before].clone() for block in above},
    )


@torch.no_grad()
def _entering(on: View, batch: Batch, block: int, cache: DynamicCache | None) -> Tensor:
    stop = block if cache is None else None  # a cache wants the keys and values of the blocks above
    with calling(Call(watch=frozenset({block}), stop=stop)) as recording:
        on.anatomy.decoder(
            input_ids=batch.ids,
            attention_mask=batch.attention.long(),
            position_ids=batch.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return recording.entering[block]


def _cache(prefilled: Prefilled, depth: int) -> DynamicCache | None:
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
