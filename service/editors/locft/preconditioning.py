"""Preconditioned steps: the changes of a step of Adam are damped along directions in which neutral inputs have much energy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.editors.examples import item_rows
from service.editors.locft.location import TunedLocation
from service.editors.locft.second_moment import matrices_of, mean_moments, neutral_moments
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training_step import MasterWeights
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitFailed, FitItem, Hooks
from service.lm.components import Weight
from service.lm.overlay import Overlay, View, make_view

_EDITS = 1_000  # consolidated edits whose inputs are measured, as many as there are sentences


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """g · P (width, width) of one tuned matrix, whose inputs lie along `axis`."""

    matrix: Tensor
    axis: int

    def apply(self, update: Tensor) -> Tensor:
        """ΔW P for a matrix (out, in), P ΔW for one that is kept as (in, out). P is symmetric."""
        return update @ self.matrix if self.axis == 1 else self.matrix @ update


class PreconditionedWeights(MasterWeights):
    """W ← W + g · ΔW P, where ΔW is the step of Adam. Weights without a preconditioner move by ΔW."""

    def __init__(
        self,
        view: View,
        names: Sequence[str],
        rate: float,
        start: Mapping[str, Weight],
        generator: torch.Generator | None = None,
        *,
        preconditioners: Mapping[str, Preconditioner],
    ) -> None:
        self._preconditioners = preconditioners
        super().__init__(view, names, rate, start, generator)

    @torch.no_grad()
    def descend(self) -> None:
        """See MasterWeights."""
        before = {name: self.tensors[name].clone() for name in self._preconditioners}
        super().descend()
        for name, preconditioner in self._preconditioners.items():
            tensor = self.tensors[name]
            tensor.copy_(before[name] + preconditioner.apply(tensor - before[name]))


def make_preconditioners(
    view: View,
    location: TunedLocation,
    items: Sequence[FitItem],
    *,
    settings: LocftSettings,
    neutral: NeutralSentences,
    start: Overlay,
    generator: torch.Generator,
    hooks: Hooks,
) -> dict[str, Preconditioner]:
    """The preconditioner of each tuned matrix that neutral sentences enter. `view` is one of the base, for this use alone.

    In a minor retrain `precondition_edits` adds the second moment of consolidated edits' inputs to C₀, with that weight.
    Raises FitFailed on numbers that are not finite.
    """
    moments = dict(neutral_moments(view, location, neutral, hooks))
    if start.tensors and settings.precondition_edits:
        for name, moment in _consolidated_moments(view, location, items, start, generator, hooks).items():
            if name in moments:
                moments[name] = moments[name] + settings.precondition_edits * moment.cpu()
    axes, device = matrices_of(view, location), view.base.device
    preconditioners = {}
    for name, moment in moments.items():
        hooks.begin_step()
        matrix = damping_matrix(moment.to(device), settings.precondition).mul_(settings.precondition_rate)
        preconditioners[name] = Preconditioner(matrix.to(moment.dtype), axes[name])
    return preconditioners


def damping_matrix(moment: Tensor, ratio: float) -> Tensor:
    """P = ρ m (C + ρ m I)⁻¹ (width, width) in fp64, for a second moment C with the mean eigenvalue m.

    A direction of energy λ is multiplied by ρ m / (λ + ρ m): almost 1 where λ is small beside ρ m, almost 0 where it is large.
    If nothing but zeros entered, nothing is damped. In place of one copy in fp64. Raises FitFailed if C is not finite, or ρ too
    small for it.
    """
    work = moment.to(torch.float64, copy=True)
    mean = float(work.diagonal().mean())
    if mean == 0.0:
        return torch.eye(len(work), dtype=work.dtype, device=work.device)
    work.div_(mean).diagonal().add_(ratio)
    factor = work.mT  # LAPACK's order: the factor and then the inverse take the place of the matrix, which is symmetric
    _, info = torch.linalg.cholesky_ex(factor, out=(factor, torch.empty((), dtype=torch.int32, device=work.device)))
    if not torch.isfinite(factor.diagonal()).all() or int(info):
        raise FitFailed("The inputs of the tuned weights are not finite, or locft.precondition is too small for them.")
    return torch.cholesky_inverse(factor, out=factor).mul_(ratio)


def _consolidated_moments(
    view: View,
    location: TunedLocation,
    items: Sequence[FitItem],
    start: Overlay,
    generator: torch.Generator,
    hooks: Hooks,
) -> Mapping[str, Tensor]:
    """The second moments over consolidated edits under the tensors at the start. Of live ones alone: what a retracted edit
    entered is free to change.
    """
    consolidated = [item for item in items if item.is_consolidated and not item.is_tombstone]
    drawn = torch.randperm(len(consolidated), generator=generator)[:_EDITS].sort().values.tolist()
    chosen = item_rows(view.base, [consolidated[index] for index in drawn], eos=True, learn_probes=False)
    return mean_moments(make_view(view.base, start.tensors), location, [each.row for each in chosen], hooks)
