"""The trained form of an intervention: free parameters whose bases stay orthonormal at every step.

    Φ(h) = h + Rᵀ diag(w(h)) (A h + b − R h),    w(h) = σ(G · RMSNorm_g(h))        (BaFT, Eq. 3)

The optimizer moves a free matrix M (R, D). The bases are its CholeskyQR factor: R = L⁻¹ M with L Lᵀ = M Mᵀ, so R Rᵀ = I always
and M's scale is free. M = R is a fixed point, so training continues from a stored intervention without any change.
Knows no loss and no data.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from service.editors.baft.settings import BaftSettings
from service.lm.intervention import Adapter, Intervention
from service.lm.last_tokens import LastTokens


def orthonormalise(free: Tensor) -> Tensor:
    """CholeskyQR: orthonormal rows (R, D) from the rows of `free`, differentiably. Error 1e-6 in fp32 for well-conditioned rows.

    Rows that are dependent or not finite give NaN, and NaN stops a fit.
    """
    lower, fault = torch.linalg.cholesky_ex(free @ free.T)  # (R, R)
    lower = lower.masked_fill(fault > 0, math.nan)
    return torch.linalg.solve_triangular(lower, free, upper=False)  # (R, D)


class TrainableIntervention(nn.Module):
    """One block's parameters in fp32."""

    def __init__(self, start: Intervention) -> None:
        super().__init__()
        self.free = _parameter(start.rotation)  # (R, D)
        self.source = _parameter(start.source)  # (R, D)
        self.bias = _parameter(start.bias)  # (R,)
        self.gate = None if start.gate is None else _parameter(start.gate)  # (R or 1, D)
        self.gain = None if start.gain is None else _parameter(start.gain)  # (D,)

    def with_gradients(self) -> Intervention:
        """The current intervention; gradients flow to the parameters."""
        return Intervention(orthonormalise(self.free), self.source, self.bias, self.gate, self.gain)

    def without_gradients(self) -> Intervention:
        """A copy without gradients, in the memory layout of a loaded checkpoint: matrix products round differently by layout."""
        gate = None if self.gate is None else self.gate.detach().clone()
        gain = None if self.gain is None else self.gain.detach().clone()
        rotation = orthonormalise(self.free.detach().double()).float().contiguous()
        return Intervention(rotation, self.source.detach().clone(), self.bias.detach().clone(), gate, gain)


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().float().clone(memory_format=torch.contiguous_format))


class TrainableAdapter(nn.Module):
    """The interventions of all tuned blocks while they are trained."""

    def __init__(self, start: Mapping[int, Intervention]) -> None:
        super().__init__()
        self.blocks = tuple(sorted(start))
        self.interventions = nn.ModuleList(TrainableIntervention(start[block]) for block in self.blocks)

    def _iterate(self) -> Iterator[tuple[int, TrainableIntervention]]:
        for block, intervention in zip(self.blocks, self.interventions, strict=True):
            assert isinstance(intervention, TrainableIntervention)
            yield block, intervention

    def with_gradients(self) -> dict[int, Intervention]:
        """The current interventions; gradients flow to the parameters."""
        return {block: intervention.with_gradients() for block, intervention in self._iterate()}

    def without_gradients(self) -> dict[int, Intervention]:
        """Copies without gradients."""
        return {block: intervention.without_gradients() for block, intervention in self._iterate()}


def initial_interventions(
    width: int, blocks: Sequence[int], settings: BaftSettings, generator: torch.Generator
) -> dict[int, Intervention]:
    """Interventions before any edit. With `identity` (A = R, b = 0) they change no bit, whatever the gates."""
    return {block: _initial_intervention(width, settings, generator) for block in blocks}


def identity_adapter(width: int, blocks: Sequence[int], last: LastTokens, settings: BaftSettings) -> Adapter:
    """An adapter at the blocks of a fit that, with `init: identity`, changes nothing."""
    return Adapter(initial_interventions(width, blocks, settings, torch.Generator().manual_seed(0)), {}, last)


def _initial_intervention(width: int, settings: BaftSettings, generator: torch.Generator) -> Intervention:
    rank = min(settings.rank, width)
    rotation = orthonormalise(torch.randn(rank, width, generator=generator, dtype=torch.float64)).float().contiguous()
    source, bias = rotation.clone(), torch.zeros(rank)
    if settings.init == "pyreft":
        source, bias = _linear_init((rank, width), width, generator), _linear_init((rank,), width, generator)
    rows = {"none": 0, "subspace": 1, "basis": rank}[settings.gate]
    gate = _linear_init((rows, width), width, generator) if rows else None
    gain = torch.ones(width) if rows and settings.gate_norm == "rms" else None
    return Intervention(rotation, source, bias, gate, gain)


def _linear_init(shape: tuple[int, ...], width: int, generator: torch.Generator) -> Tensor:
    """The initialisation of a torch Linear layer: uniform within ±1/√width."""
    return (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(width)
