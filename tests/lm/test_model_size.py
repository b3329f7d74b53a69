"""The size of a model, read from its configuration."""

from pathlib import Path

import pytest
import torch

from service.domain.errors import Refused
from service.lm.model_size import read_model_size
from tests.builders import FAMILIES, make_model, save_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_size_is_that_of_the_loaded_model_in_every_family(family: str, tmp_path: Path) -> None:
    model = make_model(family)

    size = read_model_size(save_model(tmp_path, family))

    assert size.weights == sum(weight.numel() for weight in model.parameters())
    assert size.matrix in {tuple(weight.shape[-2:]) for weight in model.parameters() if weight.ndim > 1}


def test_the_matrix_is_the_largest_of_a_block_and_no_embedding(tmp_path: Path) -> None:
    blocks = dict(make_model("llama").named_parameters())
    largest = max((blocks[name] for name in blocks if ".layers.0." in name), key=torch.numel)

    assert read_model_size(save_model(tmp_path)).matrix == tuple(largest.shape)


def test_no_weight_is_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    (folder / "model.safetensors").write_bytes(b"")

    assert read_model_size(folder).weights > 0


def test_a_model_of_an_unknown_kind_is_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')

    with pytest.raises(Refused, match="configuration is not one"):
        read_model_size(folder)
