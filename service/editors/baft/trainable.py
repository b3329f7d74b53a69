"""The trained form of an intervention: free parameters whose bases stay orthonormal at every step.

    Φ(h) = h + Rᵀ diag(w(h)) (A h + b − R h),    w(h) = σ(G · RMSNorm_g(h))        (BaFT, Eq. 3)

The optimizer moves a free matrix M (R, D); the bases are its CholeskyQR factor, R = L⁻¹ M with L Lᵀ = M Mᵀ, so R Rᵀ = I always
and M's scale is free. Starting from M = R is a fixed point, so a stored intervention continues as if it had never been stored.
Knows no loss and no data.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from service.editors.baft.settings import BaftSettings
from service.lm.intervention import Adapter, Intervention


def orthonormal(free: Tensor) -> Tensor:
    """CholeskyQR: the (R, D) rows of `free` made orthonormal, differentiably. 1e-6 from exact in fp32 for well-kept rows.

    Rows that are not independent, or not finite, give NaN, which stops a fit.
    """
    lower, fault = torch.linalg.cholesky_ex(free @ free.T)  # (R, R)
    lower = lower.masked_fill(fault > 0, math.nan)
    return torch.linalg.solve_triangular(lower, free, upper=False)  # (R, D)


class TrainableIntervention(nn.Module):
    """One block's parameters in fp32. `now()` is the intervention they mean, with gradients."""

    def __init__(self, start: Intervention) -> None:
        super().__init__()
        self.free = _trained(start.rotation)  # (R, D)
        self.source = _trained(start.source)  # (R, D)
        self.bias = _trained(start.bias)  # (R,)
        self.gate = None if start.gate is None else _trained(start.gate)  # (R or 1, D)
        self.gain = None if start.gain is None else _trained(start.gain)  # (D,)

    def now(self) -> Intervention:
        """The intervention at this moment of training."""
        return Intervention(orthonormal(self.free), self.source, self.bias, self.gate, self.gain)

    def frozen(self) -> Intervention:
        """A copy without gradients, laid out as it will be read back from disk: products round differently by layout."""
        gate = None if self.gate is None else self.gate.detach().clone()
        gain = None if self.gain is None else self.gain.detach().clone()
        rotation = orthonormal(self.free.detach().double()).float().contiguous()
        return Intervention(rotation, self.source.detach().clone(), self.bias.detach().clone(), gate, gain)


def _trained(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().float().clone(memory_format=torch.contiguous_format))


class TrainableAdapter(nn.Module):
    """The interventions of all tuned blocks while they are trained."""

    def __init__(self, start: Mapping[int, Intervention]) -> None:
        super().__init__()
        self.blocks = tuple(sorted(start))
        self.interventions = nn.ModuleList(TrainableIntervention(start[block]) for block in self.blocks)

    def _each(self) -> Iterator[tuple[int, TrainableIntervention]]:
        for block, intervention in zip(self.blocks, self.interventions, strict=True):
            assert isinstance(intervention, TrainableIntervention)
            yield block, intervention

    def now(self) -> dict[int, Intervention]:
        """The interventions at this moment, with gradients."""
        return {block: intervention.now() for block, intervention in self._each()}

    def frozen(self) -> dict[int, Intervention]:
        """Copies without gradients."""
        return {block: intervention.frozen() for block, intervention in self._each()}


def initial_interventions(
    width: int, blocks: Sequence[int], settings: BaftSettings, generator: torch.Generator
) -> dict[int, Intervention]:
    """Interventions before any edit. With `identity` (A = R, b = 0) they change nothing, exactly, whatever the gate says."""
    return {block: _fresh_one(width, settings, generator) for block in blocks}


def identity_adapter(width: int, blocks: Sequence[int], settings: BaftSettings) -> Adapter:
    """An adapter that stands at the right blocks and, with `init: identity`, changes nothing."""
    return Adapter(initial_interventions(width, blocks, settings, torch.Generator().manual_seed(0)), {}, settings.last)


def _fresh_one(width: int, settings: BaftSettings, generator: torch.Generator) -> Intervention:
    rank = min(settings.rank, width)
    rotation = orthonormal(torch.randn(rank, width, generator=generator, dtype=torch.float64)).float().contiguous()
    source, bias = rotation.clone(), torch.zeros(rank)
    if settings.init == "pyreft":
        source, bias = _linear_start((rank, width), width, generator), _linear_start((rank,), width, generator)
    rows = {"none": 0, "subspace": 1, "basis": rank}[settings.gate]
    gate = _linear_start((rows, width), width, generator) if rows else None
    gain = torch.ones(width) if rows and settings.gate_norm == "rms" else None
    return Intervention(rotation, source, bias, gate, gain)


def _linear_start(shape: tuple[int, ...], width: int, generator: torch.Generator) -> Tensor:
    """What torch gives a fresh Linear layer: uniform within ±1/√width."""
    return (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(width)
