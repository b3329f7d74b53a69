"""The function that BaFT adds to a hidden state, as immutable tensors. Knows no models and no training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from service.lm.last_tokens import LastTokens
from service.lm.scope import Scope

NORM_EPS = 1e-6
SCOPE_ARRAY = "scope"  # of a checkpoint: UTF-8, since the names of a thousand edits are too long for its header
_FIELDS = ("rotation", "source", "bias", "gate", "gain")


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
        fields = {name: getattr(self, name) for name in _FIELDS}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The intervention with these tensors. Raises ValueError, TypeError or AttributeError if they do not belong together."""
        intervention = cls(**tensors)
        rank, width = intervention.rotation.shape
        gate, gain = intervention.gate, intervention.gain
        has_shapes = (
            intervention.source.shape == (rank, width)
            and intervention.bias.shape == (rank,)
            and (gate is None or gate.shape in ((rank, width), (1, width)))
            and (gain is None or gain.shape == (width,))
        )
        if not has_shapes:
            raise ValueError("shapes that do not belong together")
        return intervention


@dataclass(frozen=True, eq=False)
class Balance:
    """The state of incremental load balancing at one block: S_k, the sum over past edits of mean weights, and their number n.

    Where the editor forgets, older edits count less in S, and n is at most its horizon.
    """

    total: Tensor  # S: (R,) fp32
    count: int


@dataclass(frozen=True, eq=False)
class Adapter:
    """The interventions of one version by block, for the `last` tokens of a prompt and for every output token.

    They act on the prompts in `scope`; without one, on every prompt.
    """

    interventions: Mapping[int, Intervention]
    balance: Mapping[int, Balance] = field(default_factory=dict)
    last: LastTokens = field(default_factory=LastTokens)
    scope: Scope | None = None

    def to(self, device: torch.device | str) -> "Adapter":
        """The same numbers on a device. The balance stays on its device, since only fitting reads it."""
        moved = {block: intervention.to(device) for block, intervention in self.interventions.items()}
        return Adapter(moved, self.balance, self.last, self.scope)

    @property
    def first_block(self) -> int:
        """The lowest intervened block. All states up to its output are the base model's."""
        return min(self.interventions)

    def to_arrays(self) -> dict[str, Tensor]:
        """The tensors by their names in a checkpoint: `adapter/BLOCK/FIELD`, `balance/BLOCK`, and the text of the `scope`."""
        arrays = {
            f"adapter/{block}/{name}": tensor
            for block, intervention in self.interventions.items()
            for name, tensor in intervention.tensors().items()
        }
        arrays |= {f"balance/{block}": balance.total for block, balance in self.balance.items()}
        return arrays if self.scope is None else arrays | {SCOPE_ARRAY: _text_to_tensor(self.scope.to_json())}

    def describe(self) -> dict[str, Any]:
        """What the arrays do not say, as a JSON object."""
        counts = {str(block): balance.count for block, balance in self.balance.items()}
        return {**self.last.describe(), "blocks": sorted(self.interventions), "counts": counts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """The adapter with a description; of the arrays it takes its own. Raises KeyError, TypeError, ValueError or
        AttributeError if they do not belong together.
        """
        of_block: dict[int, dict[str, Tensor]] = {int(block): {} for block in description["blocks"]}
        for name, tensor in arrays.items():
            if name.startswith("adapter/"):
                _, block, field_name = name.split("/")
                of_block[int(block)][field_name] = tensor
        balance = {int(block): Balance(arrays[f"balance/{block}"], int(count)) for block, count in description["counts"].items()}
        interventions = {block: Intervention.from_tensors(tensors) for block, tensors in of_block.items()}
        scope = Scope.from_json(_tensor_to_text(arrays[SCOPE_ARRAY])) if SCOPE_ARRAY in arrays else None
        return cls(interventions, balance, LastTokens.from_description(description), scope)


def _text_to_tensor(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _tensor_to_text(tensor: Tensor) -> str:
    if tensor.dtype != torch.uint8:
        raise ValueError("a scope that is no text")
    return bytes(tensor.tolist()).decode()


def _widen(hidden: Tensor) -> Tensor:
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))
