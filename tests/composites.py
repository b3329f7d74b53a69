"""Builders of composite checkpoints: tiny random models of text and images, as their own classes in transformers save them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.builders import decoder_settings, fill_with_random_numbers, make_tokenizer

_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
# Family: the family of its text part, and its other settings.
COMPOSITES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {"vision_config": _VISION, "mm_tokens_per_image": 1}),
    "gemma4": ("gemma4_text", {"vision_config": _VISION | {"num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8}}),
    "llama4": (
        "llama4_text",
        {"vision_config": _VISION | {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}},
    ),
    "mistral3": ("mistral", {"vision_config": _VISION | {"model_type": "pixtral", "head_dim": 8}}),
    "smolvlm": ("llama", {"vision_config": _VISION, "scale_factor": 1}),
}
# Families without a causal class for their text part, with the family of that.
TEXTLESS = {
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "mllama": "mllama_text_model",
}


def make_composite(family: str, **changes: Any) -> nn.Module:
    """A random model of a composite family."""
    text, others = COMPOSITES[family]
    config = AutoConfig.for_model(family, text_config={"model_type": text, **decoder_settings(text)}, **others | changes)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    fill_with_random_numbers(model)
    return model


def save_composite(folder: Path, family: str, **changes: Any) -> nn.Module:
    """A random model, saved with its tokenizer as a Hugging Face folder."""
    model = make_composite(family, **changes)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model


def save_config(folder: Path, family: str, *weights: str, **settings: Any) -> None:
    """A folder with the configuration of a family, its tokenizer, and a file that has nothing but the names of weights."""
    AutoConfig.for_model(family, **settings).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    save_file({name: torch.zeros(1) for name in weights or ("model.language_model.norm.weight",)}, folder / "model.safetensors")
