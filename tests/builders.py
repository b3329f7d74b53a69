"""Builders of test objects: tiny random models of every family, a byte-level tokenizer, bases, adapters."""

import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from service.lm.base import Base, build_base
from service.lm.blocks import ModuleKind
from service.lm.intervention import Adapter, Balance, Intervention
from service.lm.overlay import Call, Recording, call_context
from service.lm.prompts import Row, row_from_ids

WIDTH = 32
VOCABULARY = 320
TOKENS = 267  # of the tokenizer below; a model may have more rows, as published ones do
CONTEXT = 128
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_GATED = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_EVERY_OTHER = ["sliding_attention", "full_attention"] * 2
# Small windows, so that sliding attention is exercised by the short rows of the tests.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8, "hidden_activation": "gelu_pytorch_tanh"},
    "gemma2": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8, "attn_implementation": "eager"},
    "phi3": {"sliding_window": None},
    "gpt2": {
        "n_embd": WIDTH,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": CONTEXT,
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    },
    "gpt_neox": {},
    "gptj": {"n_embd": WIDTH, "n_layer": 4, "n_head": 4, "rotary_dim": 4, "n_positions": CONTEXT},
    "gpt_neo": {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": 5},
    "qwen2_moe": {
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
    },
    "gemma3_text": {"head_dim": 8, "sliding_window": 5, "layer_types": _EVERY_OTHER, "query_pre_attn_scalar": 8},
    "gemma4_text": {
        "head_dim": 8,
        "global_head_dim": 16,
        "sliding_window": 5,
        "layer_types": _EVERY_OTHER,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "olmo2": {},
    "smollm3": {"no_rope_layer_interval": 2},
    "qwen3_moe": {"head_dim": 8, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {
        "head_dim": 8,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
        "interleave_moe_layer_step": 2,
        "no_rope_layers": [1, 1, 0, 1],
        "attention_chunk_size": 5,
    },
}
EXPERTS_ALONE = ("qwen3_moe", "mixtral")  # families of FAMILIES whose MLP is experts and nothing else
_BUILT: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


def built_models() -> Iterator[nn.Module]:
    """Every base model that was built here and is still alive."""
    return iter(list(_BUILT))


@cache
def make_tokenizer(*, bos: bool = True, chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token a byte, a few merges, and control tokens of the usual kinds."""
    control = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: number for number, token in enumerate([*control, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "S"), ("i", "s"), ("Ġ", "is")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE if chat else None,
    )


def make_larger_tokenizer() -> PreTrainedTokenizerFast:
    """The same tokenizer with two tokens that were added later: the padding token, and <extra>, which ordinary text holds."""
    tokenizer = copy.deepcopy(make_tokenizer())
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens(["<extra>"])
    return tokenizer


def make_model(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Module:
    """A random model of a family: 4 blocks, width 32. Weights are large enough for its logits to differ between tokens."""
    settings = decoder_settings(family) | changes
    implementation = settings.pop("attn_implementation", None)
    config = AutoConfig.for_model(family, **settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=dtype)
    fill_with_random_numbers(model, seed=seed)
    return model.to(dtype)


def decoder_settings(family: str) -> dict[str, Any]:
    """The settings of a tiny model of a family."""
    return {**({} if family == "gpt2" else _GATED), **FAMILIES.get(family, {})}


def fill_with_random_numbers(model: nn.Module, *, seed: int = 0) -> None:
    """Fill the matrices of a model, so that its logits differ between tokens."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.9 / parameter.shape[-1] ** 0.5))


def tuned_kind(family: str) -> ModuleKind:
    """The kind of a location of one matrix or few, which the family has."""
    return "attention" if family in EXPERTS_ALONE else "down"


def make_base(
    family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, bos: bool = True, **changes: Any
) -> Base:
    """A base over a tiny random model, in memory."""
    base = build_base(make_model(family, seed=seed, dtype=dtype, **changes), make_tokenizer(bos=bos), name=f"tiny-{family}")
    _BUILT.add(base.model)
    return base


def save_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """A tiny model and its tokenizer as a Hugging Face folder."""
    make_model(family, **changes).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_intervention(
    *, width: int = WIDTH, rank: int = 3, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> Intervention:
    """An intervention that moves states visibly; scale 0 is the identity."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotation = torch.linalg.qr(draw(width, rank)).Q.T.contiguous()
    source, bias = rotation + scale * draw(rank, width) / width**0.5, scale * draw(rank)
    gate, gain = draw(rank, width) / width**0.5, 1 + 0.1 * draw(width)
    return Intervention(*(tensor.to(dtype) for tensor in (rotation, source, bias, gate, gain)))


def make_adapter(
    blocks: Sequence[int] = (1, 2), *, seed: int = 0, scale: float = 1.0, rank: int = 3, dtype: torch.dtype = torch.float32
) -> Adapter:
    """An adapter with one intervention a block and some balance state."""
    interventions = {b: make_intervention(rank=rank, seed=seed * 100 + b, scale=scale, dtype=dtype) for b in blocks}
    balance = {b: Balance(torch.full((rank,), 0.5 * (seed + 1)), seed + 1) for b in blocks}
    return Adapter(interventions, balance)


def make_rows(base: Base, shapes: Sequence[tuple[int, int]], *, seed: int = 0) -> list[Row]:
    """Rows of random ids for (prompt length, target length), with BOS where the base's tokenizer adds it."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for prompt, target in shapes:
        ids = torch.randint(5, 250, (prompt + target,), generator=generator).tolist()
        if base.bos_id is not None:
            ids[0] = base.bos_id
        rows.append(row_from_ids(base, ids, prompt))
    return rows


def intervention_context(interventions: Mapping[int, Intervention], mask: Tensor) -> AbstractContextManager[Recording]:
    """A context in which forward passes of a view have interventions at `mask` (B, T)."""
    return call_context(Call(interventions=interventions, mask=mask))
