"""The function that BaFT adds to a hidden state, as immutable tensors. Knows no models, no prompts and no training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

NORM_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class Intervention:
    """Φ(h) = h + Rᵀ · diag(w(h)) · (A h + b − R h), with w(h) = σ(G · RMSNorm_g(h))   (BaFT, Eq. 3).

    Without a gate w is 1 and Φ is ReFT's (Eq. 1). A gate of one row is one weight for the whole subspace. Arithmetic is fp32, or
    wider if h is. The result has the dtype of h, and is h bit for bit where the mask is false.
    """

    rotation: Tensor  # R: (R, D), orthonormal rows
    source: Tensor  # A: (R, D)
    bias: Tensor  # b: (R,)
    gate: Tensor | None = None  # G: (R, D), or (1, D), or no gate
    gain: Tensor | None = None  # g: (D,), or no norm in front of the gate

    def weights(self, hidden: Tensor) -> Tensor:
        """w(h) for hidden (..., D): (..., R) in [0, 1]."""
        x = _widen(hidden)
        rank = self.rotation.shape[0]
        if self.gate is None:
            return x.new_ones(*x.shape[:-1], rank)
        if self.gain is not None:
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * self.gain
        return torch.sigmoid(x @ self.gate.T).expand(*x.shape[:-1], rank)

    def apply(self, hidden: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        """Φ(h) where mask (...) is true, h elsewhere, for weights (..., R) as `weights(hidden)` gives them."""
        x = _widen(hidden)
        change = x @ self.source.T + self.bias - x @ self.rotation.T  # (..., R)
        moved = (x + (weights * change) @ self.rotation).to(hidden.dtype)  # (..., D)
        return torch.where(mask.unsqueeze(-1), moved, hidden)

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.apply(hidden, mask, self.weights(hidden))

    def to(self, device: torch.device | str) -> "Intervention":
        """The same numbers on a device; the same object if it is there. Gradients flow back."""
        if self.rotation.device == device:
            return self
        return Intervention(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by field name."""
        fields = {name: getattr(self, name) for name in ("rotation", "source", "bias", "gate", "gain")}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}


@dataclass(frozen=True, eq=False)
class Balance:
    """The state of incremental load balancing at one block: S_k, the sum over past edits of mean weights, and their number n."""

    total: Tensor  # S: (R,) fp32
    count: int


@dataclass(frozen=True, eq=False)
class Adapter:
    """The interventions of one version by block, for the `last` tokens of a prompt and for every output token."""

    interventions: Mapping[int, Intervention]
    balance: Mapping[int, Balance] = field(default_factory=dict)
    last: int = 3

    def to(self, device: torch.device | str) -> "Adapter":
        """The same numbers on a device. The balance stays on its device, since only fitting reads it."""
        moved = {block: intervention.to(device) for block, intervention in self.interventions.items()}
        return Adapter(moved, self.balance, self.last)

    @property
    def first_block(self) -> int:
        """The lowest intervened block. All states up to its output are the base model's."""
        return min(self.interventions)


def _widen(hidden: Tensor) -> Tensor:
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))
