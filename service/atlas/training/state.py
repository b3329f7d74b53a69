"""The checkpoint of a training run: weights, optimizer moments and the step in one safetensors file, replaced atomically."""

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Position:
    """The position of a run: its next step, and the seed of its data order."""

    seed: int
    step: int


def _named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(model.named_parameters())


def save(folder: Path, position: Position, model: nn.Module, optimizer: AdamW) -> None:
    """Writes the new checkpoint beside the old one, then replaces the old one. A kill at any moment leaves one of them whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, parameter in _named_parameters(model):
        tensors[f"model.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = value.contiguous()
    part_file = folder / f"{FILE}.part"
    save_file(tensors, part_file, metadata={"seed": str(position.seed), "step": str(position.step)})
    with part_file.open("rb") as file:
        os.fsync(file.fileno())
    part_file.replace(folder / FILE)


def restore(folder: Path, model: nn.Module, optimizer: AdamW) -> Position | None:
    """Loads a saved run into the model and the optimizer. None where there is no checkpoint."""
    if not (folder / FILE).exists():
        return None
    with safe_open(folder / FILE, framework="pt") as file:
        metadata, keys = file.metadata(), set(file.keys())
        for name, parameter in _named_parameters(model):
            parameter.data.copy_(file.get_tensor(f"model.{name}"))
            kinds = [kind for kind in ("step", "exp_avg", "exp_avg_sq") if f"optimizer.{kind}.{name}" in keys]
            optimizer.state[parameter] = {
                kind: file.get_tensor(f"optimizer.{kind}.{name}").to(parameter.device) for kind in kinds
            }
    return Position(seed=int(metadata["seed"]), step=int(metadata["step"]))
