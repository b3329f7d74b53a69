"""The size of a model, from its configuration alone: no weight is read."""

from dataclasses import dataclass
from pathlib import Path

import torch

from service.lm.blocks import anatomy_of
from service.lm.model_files import model_folder
from service.lm.pretrained import load_config, make_skeleton, quieten


@dataclass(frozen=True)
class ModelSize:
    """The number of a model's weights, and the sides of the largest matrix of a block: outputs, inputs."""

    weights: int
    matrix: tuple[int, int]


def read_model_size(path: str | Path) -> ModelSize:
    """The size of the model in a folder. Raises Refused for a model that cannot be served."""
    quieten()
    model = make_skeleton(load_config(model_folder(path)))
    largest = max((weight for weight in anatomy_of(model).blocks[-1].parameters() if weight.ndim > 1), key=torch.numel)
    out, width = largest.shape[-2:]  # of one expert, where a tensor holds all of them
    return ModelSize(sum(weight.numel() for weight in model.parameters()), (out, width))
