"""Models of random weights in the shapes of real models, for measuring time and memory. Nothing is downloaded."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from service.lm.base import Base, build_base
from service.lm.prompts import Row, row_from_ids

LLAMA_SHAPES: dict[str, dict[str, int]] = {
    "8b": {  # Llama-3-8B
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "small": {
        "vocab_size": 2_048,
        "hidden_size": 256,
        "intermediate_size": 896,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
}
FIRST_TEXT_ID = 2  # 0 begins a text, 1 ends it


def byte_tokenizer(merges: Sequence[tuple[str, str]] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a byte, one for each of `merges`, and tokens that begin and end a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [left + right for left, right in merges]
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet, *merged])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def llama(shape: str, *, device: str, dtype: torch.dtype) -> Base:
    """A Llama of random weights."""
    config = LlamaConfig(
        **LLAMA_SHAPES[shape], max_position_embeddings=512, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False
    )
    return _build_model(LlamaForCausalLM, config, device, dtype)


def qwen2(blocks: int, width: int, *, vocabulary: int = 32_000) -> Base:
    """A Qwen2 of random weights in fp32 on the CPU, proportioned as Qwen2-0.5B (24 blocks, width 896, vocabulary 151,936)."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 4864 // 896,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _build_model(Qwen2ForCausalLM, config, "cpu", torch.float32)


def random_rows(base: Base, tokens: int, count: int, *, answer: int) -> list[Row]:
    """Rows of random ids. The last `answer` tokens of each are its target."""
    generator = torch.Generator().manual_seed(tokens)
    vocabulary = cast(Any, base.model.config).vocab_size
    ids = torch.randint(FIRST_TEXT_ID, vocabulary, (count, tokens), generator=generator)
    return [row_from_ids(base, row, tokens - answer) for row in ids.tolist()]


def _build_model(model_class: type, config: LlamaConfig | Qwen2Config, device: str, dtype: torch.dtype) -> Base:
    """The model is created on its device and in its dtype, so that 8 billion numbers are not copied."""
    torch.manual_seed(0)
    previous_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = model_class(config)
    finally:
        torch.set_default_dtype(previous_dtype)
    return build_base(model, byte_tokenizer(), name=f"random {config.model_type}")
