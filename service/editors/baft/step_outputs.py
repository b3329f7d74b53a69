"""One look at rows of a fit: what a step needs of them, in a bounded amount of memory.

Rows that are too many tokens for one pass go through the model in groups of like length, each of which is computed once more for
its gradients (checkpointing). The mathematics is the same; what fits into one pass is computed in one, as ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from service.editors.baft.dataset import BaftDataset
from service.editors.baft.forward_passes import Pass
from service.editors.correctness import row_margins
from service.lm.intervention import Intervention
from service.lm.row_groups import group_by_length

TOKENS_RECORDED = 16_384  # of one pass without gradients


@dataclass(frozen=True, eq=False)
class Seen:
    """Of the chosen rows: the losses (N,) of their target tokens, with gradients, and which row each belongs to; by how much the
    least certain token of each row leads (rows,); and by block the gate weights (rows, R), if recorded.
    """

    losses: Tensor
    row_of: Tensor
    leads: Tensor
    weights: Mapping[int, Tensor]


def look(material: BaftDataset, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool) -> Seen:
    """The chosen rows of a material, by index, under these interventions; gradients flow to them."""
    groups = group_by_length([len(material.asked[index].row) for index in chosen])
    if len(groups) <= 1:
        return _seen(material.asked_passes(chosen, interventions, record=record), len(chosen))

    def of_group(group: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, dict[int, Tensor]]:
        one = _seen(material.asked_passes([chosen[at] for at in group], interventions, record=record), len(group))
        return one.losses, one.row_of, one.leads, dict(one.weights)

    parts = [Seen(*checkpoint(of_group, group, use_reentrant=False, preserve_rng_state=False)) for group in groups]
    return _together(parts, groups)


def gates(material: BaftDataset, rows: Sequence[int], interventions: Mapping[int, Intervention]) -> Mapping[int, Tensor]:
    """By block the gate weights (rows, R), without gradients."""
    groups = group_by_length([len(material.asked[index].row) for index in rows], tokens=TOKENS_RECORDED)
    with torch.no_grad():
        found = [material.asked_passes([rows[at] for at in group], interventions, record=True).weights for group in groups]
    return found[0] if len(found) == 1 else _in_order(found, groups)


def _seen(seen: Pass, rows: int) -> Seen:
    losses = cross_entropy(seen.logits.float(), seen.labels, reduction="none")  # (N,)
    leads = row_margins(seen.logits, seen.labels, seen.row_of, rows)
    return Seen(losses, seen.row_of, leads, seen.weights)


def _together(parts: Sequence[Seen], groups: Sequence[Sequence[int]]) -> Seen:
    """What groups gave, as if it had been one pass; only the order of the losses is another."""
    row_of = [torch.tensor(group, device=part.row_of.device)[part.row_of] for part, group in zip(parts, groups, strict=True)]
    leads = _in_order([{0: part.leads} for part in parts], groups)[0]
    weights = _in_order([part.weights for part in parts], groups)
    return Seen(torch.cat([part.losses for part in parts]), torch.cat(row_of), leads, weights)


def _in_order(parts: Sequence[Mapping[int, Tensor]], groups: Sequence[Sequence[int]]) -> dict[int, Tensor]:
    """Tensors by row of groups, by block, put together in the order of all rows."""
    places = torch.tensor([at for group in groups for at in group])
    back = torch.empty_like(places)
    back[places] = torch.arange(len(places))
    return {block: torch.cat([part[block] for part in parts])[back.to(parts[0][block].device)] for block in parts[0]}
