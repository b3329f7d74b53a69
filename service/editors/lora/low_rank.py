"""A pair of low rank: the change of one weight as the product of two thin matrices (LoRA, Hu et al. 2021, section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """W' = W + s · B A for one weight W (…, m, n). Weights of more dimensions are stacks of matrices, each with its own pair."""

    kind: ClassVar[str] = "low_rank"

    left: Tensor  # B: (…, m, r)
    right: Tensor  # A: (…, r, n)
    scale: float  # s

    @property
    def shape(self) -> torch.Size:
        """(…, m, n)"""
        return torch.Size((*self.left.shape[:-1], self.right.shape[-1]))

    @property
    def rank(self) -> int:
        """r"""
        return self.right.shape[-2]

    def merge(self, own: Tensor) -> Tensor:
        """W + s · B A, in fp32 or wider."""
        left, right = self.left.to(own.device), self.right.to(own.device)
        return own.to(torch.promote_types(own.dtype, left.dtype)) + self.scale * (left @ right)

    def to_arrays(self) -> Mapping[str, Tensor]:
        """B as `left`, A as `right`."""
        return {"left": self.left, "right": self.right}

    def describe(self) -> Mapping[str, Any]:
        """The scale."""
        return {"scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """See Component."""
        pair = cls(arrays["left"], arrays["right"], float(description["scale"]))
        if not (pair.left.is_floating_point() and pair.right.is_floating_point()):
            raise ValueError("a pair of whole numbers")
        if min(pair.left.dim(), pair.right.dim()) < 2 or pair.left.shape[-1] != pair.rank:
            raise ValueError("matrices that have no product")
        if pair.left.shape[:-2] != pair.right.shape[:-2]:
            raise ValueError("stacks of different heights")
        return pair
