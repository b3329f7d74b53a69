"""The GGUF architectures whose models can be edited, and what a file of one of them must not have, because its conversion would
lose it without a word.
"""

import re

from service.domain.errors import Refused
from service.models.gguf_header import GgufHeader

# Each is held by a test that compares the converted model with the one that its file was made of. Mistral's files are of `llama`.
EDITABLE = ("gpt2", "llama", "phi3", "qwen2", "qwen3")
# How a byte-level tokenizer splits a text before it merges. transformers knows these; it would split any other as GPT-2 does.
SPLITS = (
    "default",
    "gpt-2",
    "gpt2",
    "llama3",
    "llama-v3",
    "llama-bpe",
    "smaug-bpe",
    "tekken",
    "qwen2",
    "deepseek-r1-qwen",
    "smollm",
)
SHOWN = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


def check_architecture(header: GgufHeader) -> None:
    """Raise Refused unless models of this architecture can be edited, and this file has nothing that would be lost."""
    name = header.architecture
    if name not in EDITABLE:
        whose = f"the architecture {name}" if SHOWN.fullmatch(name) else "an unknown architecture"
        raise Refused(f"The model's GGUF file is of {whose}, and only these can be edited: {', '.join(EDITABLE)}.", field="model")
    blocks, tokens = header.number("block_count"), header.lengths.get("tokenizer.ggml.tokens")
    if blocks is None or not 0 < blocks <= len(header.tensors) or not tokens or tokens > header.elements:
        raise Refused("The header of the model's GGUF file cannot be true: look at its blocks and tokens.", field="model")
    if _has_scaled_positions(header):
        raise Refused(
            "The model's GGUF file scales its rotary positions, which the conversion would lose: take the model's safetensors.",
            field="model",
        )
    if header.text("tokenizer.ggml.model") == "gpt2" and (header.text("tokenizer.ggml.pre") or "default") not in SPLITS:
        raise Refused(
            "The model's GGUF file splits text in a way that the conversion does not know: take the model's safetensors.",
            field="model",
        )


def _has_scaled_positions(header: GgufHeader) -> bool:
    return (
        any(name.startswith("rope_") for name in header.tensors)
        or header.values.get(f"{header.architecture}.rope.scaling.type", "none") != "none"
    )
