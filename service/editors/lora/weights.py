"""The trained form of LoRA: two thin matrices for each weight, in fp32."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from service.editors.locft.training_step import MasterWeights
from service.editors.lora.low_rank import LowRank
from service.editors.protocol import StartElsewhere
from service.lm.components import Weight
from service.lm.overlay import View
from service.lm.weights import read_weight


class LowRankWeights(MasterWeights):
    """Pairs for the weights that are matrices. Other parameters of a location, such as biases, stay the base's.

    B begins with zeros, so that the first step starts from the base; A begins with numbers of variance 1/n, n being its width.
    """

    def __init__(
        self,
        view: View,
        names: Sequence[str],
        rate: float,
        start: Mapping[str, Weight],
        generator: torch.Generator | None,
        *,
        rank: int,
        scale: float,
    ) -> None:
        self._rank, self._scale = rank, scale
        own = {name: read_weight(view.model, name) for name in names}
        self._own = {name: weight for name, weight in own.items() if weight.dim() >= 2}
        super().__init__(view, tuple(self._own), rate, start, generator)

    def begin(self, view: View, start: Mapping[str, Weight], generator: torch.Generator | None) -> dict[str, Tensor]:
        """The matrices of all pairs, by `NAME/left` and `NAME/right`. Raises StartElsewhere unless `start` has such pairs."""
        dtype = torch.promote_types(view.base.dtype, torch.float32)
        pairs = self._require_pairs(start) if start else {name: self._new_pair(name, generator) for name in self.names}
        return {
            f"{name}/{side}": matrix.detach().to(self._own[name].device, dtype, copy=True).requires_grad_()
            for name, pair in pairs.items()
            for side, matrix in pair.to_arrays().items()
        }

    def served_tensors(self) -> dict[str, Tensor]:
        """See MasterWeights: the merged weights.

        The loop runs several backward passes on them, and only one may go through the product of a pair. So gradients are
        gathered at the merged weights, and `carry_gradients` takes them on.
        """
        self._merged = {name: self._pair(name).merge(self._own[name]) for name in self.names}
        self._gathered = {name: merged.detach().requires_grad_() for name, merged in self._merged.items()}
        return {name: tensor.to(self._dtype) for name, tensor in self._gathered.items()}

    def carry_gradients(self) -> None:
        """Take the gradients that were gathered at the latest served tensors on to the pairs."""
        for name, gathered in self._gathered.items():
            if gathered.grad is not None:
                self._merged[name].backward(gathered.grad)

    def descend(self) -> None:
        """See MasterWeights."""
        self.carry_gradients()
        super().descend()

    def copy_weights(self) -> dict[str, Weight]:
        """See MasterWeights: the pairs, in fp32."""
        pairs = {name: self._pair(name) for name in self.names}
        return {
            name: LowRank(pair.left.detach().clone(), pair.right.detach().clone(), self._scale) for name, pair in pairs.items()
        }

    def _pair(self, name: str) -> LowRank:
        return LowRank(self.tensors[f"{name}/left"], self.tensors[f"{name}/right"], self._scale)

    def _new_pair(self, name: str, generator: torch.Generator | None) -> LowRank:
        *stack, rows, columns = self._own[name].shape
        right = torch.randn(*stack, self._rank, columns, generator=generator) / columns**0.5
        return LowRank(torch.zeros(*stack, rows, self._rank), right, self._scale)

    def _require_pairs(self, start: Mapping[str, Weight]) -> dict[str, LowRank]:
        pairs = {name: weight for name, weight in start.items() if isinstance(weight, LowRank)}
        same = set(pairs) == set(start) == set(self.names)
        if not same or any((pair.rank, pair.scale) != (self._rank, self._scale) for pair in pairs.values()):
            raise StartElsewhere(
                "The tensors to start from are no pairs of the location, rank and scale of the settings.", field="start"
            )
        return pairs
