"""Composite checkpoints: their text part is a base like any other, or is refused in one sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from service.domain.errors import Corrupt, Refused
from service.lm.base import Base, load_base, sketch_base
from service.lm.export import write_export
from service.lm.fingerprint import fingerprint_of
from service.lm.overlay import EMPTY
from service.serving.weight_seal import WeightSeal
from tests.composites import COMPOSITES, TEXTLESS, save_composite, save_config

IDS = torch.tensor([[0, 12, 80, 33, 90, 41, 77, 25, 60, 19]])  # longer than the sliding windows


def rewrite(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Write tensors into the file of a folder, or remove them."""
    tensors = load_file(folder / "model.safetensors") | changes
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors", {"format": "pt"}
    )


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("family", COMPOSITES)
def test_the_text_part_says_what_the_whole_checkpoint_says(family: str, tmp_path: Path) -> None:
    whole = save_composite(tmp_path, family)

    base = load_base(tmp_path)

    assert (base.anatomy.family, base.part_of) == (COMPOSITES[family][0], family)
    torch.testing.assert_close(logits(base.model), logits(whole), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", COMPOSITES)
def test_an_export_of_a_text_part_is_loaded_by_plain_transformers(family: str, tmp_path: Path) -> None:
    save_composite(tmp_path / "whole", family)
    base = load_base(tmp_path / "whole")

    write_export(base, EMPTY, tmp_path / "out", manifest={})

    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert model.config.model_type == COMPOSITES[family][0]
    torch.testing.assert_close(logits(model), logits(base.model), rtol=0, atol=0)


def test_no_tensor_of_a_tower_is_loaded_nor_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = save_composite(tmp_path, "gemma3")

    names = [name for name, _ in load_base(tmp_path).model.named_parameters()]

    assert 0 < len(names) < len(list(whole.parameters()))
    assert not any("vision" in name or "projector" in name for name in names)
    assert "vision" not in caplog.text


def test_a_head_of_its_own_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    whole = save_composite(tmp_path, "gemma3", tie_word_embeddings=False)

    base = load_base(tmp_path)

    head, embedding = base.model.get_output_embeddings().weight, base.model.get_input_embeddings().weight
    assert torch.equal(head, whole.get_output_embeddings().weight) and not torch.equal(head, embedding)


def test_the_fingerprint_and_the_seal_are_those_of_the_whole_folder(tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")

    base = load_base(tmp_path)

    seal = WeightSeal(base)
    seal.check_memory()
    seal.check_files()
    assert base.fingerprint == fingerprint_of(tmp_path)
    assert (seal.failure, seal.note) == (None, None)


def test_a_text_part_that_lacks_a_tensor_is_refused_and_not_filled_with_noise(tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    rewrite(tmp_path, {"language_model.model.layers.2.mlp.down_proj.weight": None})

    with pytest.raises(Corrupt, match="lack tensors"):
        load_base(tmp_path)


def test_a_tensor_of_the_text_part_that_would_be_left_out_is_refused(tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    rewrite(tmp_path, {"language_model.model.layers.2.mlp.down_proj.weight_scale": torch.ones(1)})

    with pytest.raises(Refused, match="leave out"):
        load_base(tmp_path)


@pytest.mark.parametrize("load", [load_base, sketch_base])
def test_weights_of_an_unknown_layout_are_refused_by_family(load, tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})

    with pytest.raises(Refused, match="gemma3 were not found"):
        load(tmp_path)


def test_a_quantised_composite_checkpoint_is_refused(tmp_path: Path) -> None:
    save_composite(tmp_path, "gemma3")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))

    with pytest.raises(Refused, match="quantised"):
        load_base(tmp_path)


@pytest.mark.parametrize("load", [load_base, sketch_base])
@pytest.mark.parametrize("family", TEXTLESS)
def test_a_text_part_without_a_causal_class_is_refused_in_one_sentence(family: str, load, tmp_path: Path) -> None:
    save_config(tmp_path, family)

    with pytest.raises(Refused, match=f"{family} are composite.*{TEXTLESS[family]}") as caught:
        load(tmp_path)
    assert caught.value.field == "model"


@pytest.mark.parametrize("load", [load_base, sketch_base])
def test_a_text_part_whose_blocks_read_more_than_a_state_is_refused_by_family(load, tmp_path: Path) -> None:
    save_config(tmp_path, "gemma3n", text_config={"num_hidden_layers": 20, "hidden_size": 32, "vocab_size_per_layer_input": 320})

    with pytest.raises(Refused, match=r"gemma3n_text.*beside the state"):
        load(tmp_path)


@pytest.mark.parametrize("family", ["gemma3", "llama4"])
def test_a_sketch_has_the_anatomy_and_the_tokens_of_the_base_without_its_values(family: str, tmp_path: Path) -> None:
    save_composite(tmp_path, family)

    def facts(base: Base) -> tuple[object, ...]:
        return (base.anatomy.family, base.anatomy.depth, base.anatomy.blocks_name, base.id_count, base.eos_ids, base.surfaces)

    sketch = sketch_base(tmp_path)

    assert facts(sketch) == facts(load_base(tmp_path))
    assert all(parameter.is_meta for parameter in sketch.model.parameters())
