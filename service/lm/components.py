"""Components: the weights of an overlay that are kept in another form than a whole tensor. Each component serialises itself."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor


class Component(Protocol):
    """The change of one weight of the base. Immutable.

    `kind` is the name under which the class is registered (`component_kinds.py`). The arrays and the description are all that a
    file holds of a component.
    """

    kind: ClassVar[str]

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""

    def merge(self, own: Tensor) -> Tensor:
        """The whole weight, in fp32 or wider, on the device of `own`, which is the base's weight. Gradients flow back."""

    def to_arrays(self) -> Mapping[str, Tensor]:
        """The tensors of the component, by names without a slash."""

    def describe(self) -> Mapping[str, Any]:
        """What the arrays do not say, as a JSON object without the key `kind`."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """The component with these arrays and this description. Raises ValueError, KeyError or TypeError if they do not belong
        together.
        """


Weight = Tensor | Component


def make_dense(weight: Weight, own: Tensor) -> Tensor:
    """The whole tensor of a weight of an overlay. `own` is the base's weight in its place."""
    return weight if isinstance(weight, Tensor) else weight.merge(own)
