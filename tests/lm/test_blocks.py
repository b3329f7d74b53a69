"""Blocks and modules are found in every family; unknown structures are refused with the family's name."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from service.domain.errors import Refused
from service.lm.blocks import Location, anatomy_of
from tests.builders import EXPERTS_ALONE, FAMILIES, WIDTH, make_model

# From the module trees that transformers documents for each family; Conv1D of GPT-2 stores (in, out).
DOWN = {
    "llama": ("model.layers.2.mlp.down_proj.weight",),
    "mistral": ("model.layers.2.mlp.down_proj.weight",),
    "qwen2": ("model.layers.2.mlp.down_proj.weight",),
    "qwen3": ("model.layers.2.mlp.down_proj.weight",),
    "gemma": ("model.layers.2.mlp.down_proj.weight",),
    "gemma2": ("model.layers.2.mlp.down_proj.weight",),
    "phi3": ("model.layers.2.mlp.down_proj.weight",),
    "gpt2": ("transformer.h.2.mlp.c_proj.weight", "transformer.h.2.mlp.c_proj.bias"),
    "gpt_neox": ("gpt_neox.layers.2.mlp.dense_4h_to_h.weight", "gpt_neox.layers.2.mlp.dense_4h_to_h.bias"),
    "gptj": ("transformer.h.2.mlp.fc_out.weight", "transformer.h.2.mlp.fc_out.bias"),
    "gpt_neo": ("transformer.h.2.mlp.c_proj.weight", "transformer.h.2.mlp.c_proj.bias"),
    "qwen2_moe": ("model.layers.2.mlp.shared_expert.down_proj.weight",),
    **dict.fromkeys(("gemma3_text", "gemma4_text", "olmo2", "smollm3"), ("model.layers.2.mlp.down_proj.weight",)),
    "llama4_text": ("model.layers.2.feed_forward.down_proj.weight",),
}
UP = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), ("model.layers.2.mlp.up_proj.weight",)),
    **dict.fromkeys(("gemma3_text", "gemma4_text", "olmo2", "smollm3"), ("model.layers.2.mlp.up_proj.weight",)),
    "llama4_text": ("model.layers.2.feed_forward.up_proj.weight",),
    "gpt2": ("transformer.h.2.mlp.c_fc.weight", "transformer.h.2.mlp.c_fc.bias"),
    "gpt_neox": ("gpt_neox.layers.2.mlp.dense_h_to_4h.weight", "gpt_neox.layers.2.mlp.dense_h_to_4h.bias"),
    "gptj": ("transformer.h.2.mlp.fc_in.weight", "transformer.h.2.mlp.fc_in.bias"),
    "gpt_neo": ("transformer.h.2.mlp.c_fc.weight", "transformer.h.2.mlp.c_fc.bias"),
    "qwen2_moe": ("model.layers.2.mlp.shared_expert.up_proj.weight",),
}


def test_every_family_of_the_tests_is_listed() -> None:
    assert {*DOWN, *EXPERTS_ALONE} == set(FAMILIES)


@pytest.mark.parametrize("family", DOWN)
def test_the_down_projection_is_found_by_its_exact_name(family: str) -> None:
    anatomy = anatomy_of(make_model(family))

    assert (anatomy.depth, anatomy.width, anatomy.family) == (4, WIDTH, family)
    assert anatomy.parameters_at(Location("down", 2)) == DOWN[family]


@pytest.mark.parametrize("family", UP)
def test_the_up_projection_is_never_the_gate(family: str) -> None:
    assert anatomy_of(make_model(family)).parameters_at(Location("up", 2)) == UP[family]


@pytest.mark.parametrize("family", DOWN)
def test_a_block_holds_its_attention_and_its_mlp_and_nothing_of_other_blocks(family: str) -> None:
    model = make_model(family)
    anatomy = anatomy_of(model)

    block = set(anatomy.parameters_at(Location("block", 1)))
    mlp = set(anatomy.parameters_at(Location("mlp", 1)))
    attention = set(anatomy.parameters_at(Location("attention", 1)))

    assert mlp and attention and not mlp & attention and mlp | attention < block
    assert block == {name for name, _ in model.named_parameters() if name.startswith(anatomy.block_prefix(1) + ".")}


def test_block_1_is_not_found_in_blocks_10_to_19() -> None:
    model = make_model("llama", num_hidden_layers=12)

    names = anatomy_of(model).parameters_at(Location("block", 1))

    assert names and all(name.startswith("model.layers.1.") for name in names)


def test_a_fused_up_projection_is_refused_by_family() -> None:
    with pytest.raises(Refused, match="phi3") as caught:
        anatomy_of(make_model("phi3")).parameters_at(Location("up", 0))
    assert caught.value.field == "location"


@pytest.mark.parametrize("family", EXPERTS_ALONE)
def test_a_mixture_without_a_shared_expert_has_no_mlp_location_but_an_attention_location(family: str) -> None:
    anatomy = anatomy_of(make_model(family))

    with pytest.raises(Refused, match=family):
        anatomy.parameters_at(Location("down", 0))
    assert anatomy.parameters_at(Location("attention", 0))


@pytest.mark.parametrize("block", [-1, 4])
def test_a_block_that_is_not_there_is_refused(block: int) -> None:
    with pytest.raises(Refused, match="numbered from 0"):
        anatomy_of(make_model()).parameters_at(Location("down", block))


def test_a_mixture_in_the_place_of_an_mlp_has_a_shared_expert_under_each_name() -> None:
    anatomy = anatomy_of(make_model("llama4_text"))

    assert anatomy.parameters_at(Location("down", 1)) == ("model.layers.1.feed_forward.shared_expert.down_proj.weight",)


@pytest.mark.parametrize(
    "setting", [{"num_kv_shared_layers": 2}, {"hidden_size_per_layer_input": 8}], ids=lambda each: next(iter(each))
)
def test_blocks_that_read_more_than_the_state_below_are_refused_by_family(setting: dict[str, int]) -> None:
    with pytest.raises(Refused, match=r"gemma4_text.*beside the state"):
        anatomy_of(make_model("gemma4_text", **setting))


def test_an_encoder_decoder_is_refused_by_family() -> None:
    config = AutoConfig.for_model("t5", vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    with pytest.raises(Refused, match="t5"):
        anatomy_of(AutoModelForSeq2SeqLM.from_config(config))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mamba", {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
        (
            "bert",
            {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16},
        ),
    ],
)
def test_an_unknown_architecture_is_refused_by_family(family: str, settings: dict[str, int]) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings), dtype=torch.float32)
    with pytest.raises(Refused, match=family):
        anatomy_of(model)
