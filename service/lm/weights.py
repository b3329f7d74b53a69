"""The weights of a model by name: read dense, placed dense. Whatever edits a model reads and replaces weights here alone.

Every weight is dense today. A quantised or sharded base will differ in this file: `read_weight` will gather or dequantise, and
`place_weight` will hold a dense weight in the place of a stored one.
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from service.domain.errors import Refused
from service.lm.components import Weight, make_dense


def read_weight(model: nn.Module, name: str) -> Tensor:
    """A weight of a model in the served dtype, on its device. Raises Refused if the model has no such weight.

    The tensor may be the model's own: do not write into it.
    """
    weight = _find(model, name)
    if weight is None:
        raise Refused("A replaced tensor is not a parameter of the base model.", field="tensors")
    return weight.detach()


def weight_shape(model: nn.Module, name: str) -> torch.Size | None:
    """The shape of a weight; None if the model has no such weight."""
    weight = _find(model, name)
    return None if weight is None else weight.shape


def input_axis(model: nn.Module, name: str) -> int | None:
    """The axis of a weight along which its module's inputs lie: 1 in torch's linear layers (out, in), 0 in GPT-2's (in, out).

    None for every other weight: biases, norms, and the fused tensors of experts, each of which reads the inputs of many matrices.
    """
    path, _, leaf = name.rpartition(".")
    if leaf != "weight" or _find(model, name) is None:
        return None
    module = model.get_submodule(path)
    return 1 if isinstance(module, nn.Linear) else 0 if isinstance(module, Conv1D) else None


def place_weight(model: nn.Module, name: str, weight: Weight) -> None:
    """Put a copy of a tensor, or the merged tensor of a component, in the place of a weight. It has the dtype and the device of
    the weight that it replaces, and no gradients.

    The modules of the model must not be shared with another model. Raises Refused if the model has no such weight.
    """
    own = read_weight(model, name)
    path, _, leaf = name.rpartition(".")
    served = make_dense(weight, own).detach().to(device=own.device, dtype=own.dtype, copy=True)
    setattr(model.get_submodule(path), leaf, nn.Parameter(served, requires_grad=False))


def _find(model: nn.Module, name: str) -> Tensor | None:
    try:
        return model.get_parameter(name)
    except AttributeError:
        return None
