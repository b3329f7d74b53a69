"""The model outputs that one training step needs, computed in bounded memory.

Rows that exceed the tokens of one pass run in groups of like length. Each group is computed a second time for its gradients
(activation checkpointing). The mathematics is the same; rows that fit into one pass run in one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from service.editors.answer_margins import row_margins
from service.editors.baft.dataset import BaftDataset
from service.editors.baft.forward_passes import PassOutput
from service.lm.intervention import Intervention
from service.lm.row_groups import group_by_length

TOKENS_RECORDED = 16_384  # of one pass without gradients


@dataclass(frozen=True, eq=False)
class StepOutput:
    """The outputs of chosen rows. Gradients flow through `losses` and `weights`."""

    losses: Tensor  # (N,) of the target tokens
    row_of: Tensor  # (N,) index among the chosen rows
    margins: Tensor  # (rows,) the smallest margin of each row's target tokens, in nats
    weights: Mapping[int, Tensor]  # block: (rows, R) gate weights; empty unless recorded


def run_rows(
    dataset: BaftDataset, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool
) -> StepOutput:
    """The outputs of the dataset's chosen rows, by index, under these interventions; gradients flow to them."""
    groups = group_by_length([len(dataset.rows[index].row) for index in chosen])
    if len(groups) <= 1:
        return _step_output(dataset.passes(chosen, interventions, record=record), len(chosen))

    def run_group(group: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, dict[int, Tensor]]:
        output = _step_output(dataset.passes([chosen[index] for index in group], interventions, record=record), len(group))
        return output.losses, output.row_of, output.margins, dict(output.weights)

    parts = [StepOutput(*checkpoint(run_group, group, use_reentrant=False, preserve_rng_state=False)) for group in groups]
    return _merge(parts, groups)


def gate_weights(dataset: BaftDataset, rows: Sequence[int], interventions: Mapping[int, Intervention]) -> Mapping[int, Tensor]:
    """By block the gate weights (rows, R), without gradients."""
    groups = group_by_length([len(dataset.rows[index].row) for index in rows], tokens=TOKENS_RECORDED)
    with torch.no_grad():
        parts = [dataset.passes([rows[index] for index in group], interventions, record=True).weights for group in groups]
    return parts[0] if len(parts) == 1 else _restore_order(parts, groups)


def _step_output(output: PassOutput, rows: int) -> StepOutput:
    losses = cross_entropy(output.logits.float(), output.labels, reduction="none")  # (N,)
    margins = row_margins(output.logits, output.labels, output.row_of, rows)
    return StepOutput(losses, output.row_of, margins, output.weights)


def _merge(parts: Sequence[StepOutput], groups: Sequence[Sequence[int]]) -> StepOutput:
    """The outputs of all groups as those of one pass; only the order of the losses differs."""
    row_of = [torch.tensor(group, device=part.row_of.device)[part.row_of] for part, group in zip(parts, groups, strict=True)]
    margins = _restore_order([{0: part.margins} for part in parts], groups)[0]
    weights = _restore_order([part.weights for part in parts], groups)
    return StepOutput(torch.cat([part.losses for part in parts]), torch.cat(row_of), margins, weights)


def _restore_order(parts: Sequence[Mapping[int, Tensor]], groups: Sequence[Sequence[int]]) -> dict[int, Tensor]:
    """Tensors by block, concatenated over the groups and brought back to the order of the chosen rows."""
    positions = torch.tensor([index for group in groups for index in group])
    inverse = torch.empty_like(positions)
    inverse[positions] = torch.arange(len(positions))
    return {block: torch.cat([part[block] for part in parts])[inverse.to(parts[0][block].device)] for block in parts[0]}
