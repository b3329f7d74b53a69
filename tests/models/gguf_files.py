"""GGUF files for tests, written byte by byte from the published layout, without the package that reads them."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tests.builders import CHAT_TEMPLATE, make_tokenizer

F32 = 0
ALIGNMENT = 32
# Tensor names of the layout, by the end of the model's own names.
NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.qkv_proj.weight": "attn_qkv.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate_up_proj.weight": "ffn_up.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f.weight": "output_norm.weight",
    "ln_f.bias": "output_norm.bias",
    "ln_1.weight": "attn_norm.weight",
    "ln_1.bias": "attn_norm.bias",
    "ln_2.weight": "ffn_norm.weight",
    "ln_2.bias": "ffn_norm.bias",
    "attn.c_attn.weight": "attn_qkv.weight",
    "attn.c_attn.bias": "attn_qkv.bias",
    "attn.c_proj.weight": "attn_output.weight",
    "attn.c_proj.bias": "attn_output.bias",
    "mlp.c_fc.weight": "ffn_up.weight",
    "mlp.c_fc.bias": "ffn_up.bias",
    "mlp.c_proj.weight": "ffn_down.weight",
    "mlp.c_proj.bias": "ffn_down.bias",
}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(key: str, value: Any) -> bytes:
    """One key with a number, a truth value, a text or a list of texts or numbers."""
    match value:
        case bool():
            return text(key) + struct.pack("<I?", 7, value)
        case int():
            return text(key) + struct.pack("<II", 4, value)
        case float():
            return text(key) + struct.pack("<If", 6, value)
        case str():
            return text(key) + struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case _:
            return text(key) + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def gguf_bytes(values: Mapping[str, Any], tensors: Mapping[str, Tensor], *, counts: tuple[int, int] | None = None) -> bytes:
    """A whole file. `counts`: what the header says of the number of tensors and keys instead of the truth."""
    tensor_count, key_count = counts or (len(tensors), len(values))
    head = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, key_count)
    head += b"".join(metadata(key, value) for key, value in values.items())
    table, data = b"", b""
    for name, tensor in tensors.items():
        shape = tuple(reversed(tensor.shape))
        table += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, F32, len(data))
        content = tensor.detach().float().contiguous().numpy().tobytes()
        data += content + bytes(-len(content) % ALIGNMENT)
    head += table
    return head + bytes(-len(head) % ALIGNMENT) + data


def small_values(architecture: str = "llama", **more: Any) -> dict[str, Any]:
    """The metadata that every file needs, of a model with one block and two tokens."""
    values = {"general.architecture": architecture, f"{architecture}.block_count": 1, "tokenizer.ggml.tokens": ["a", "b"]}
    return values | {name.replace("__", "."): value for name, value in more.items()}


def write_model(path: Path, family: str, model: nn.Module, **more: Any) -> Path:
    """A tiny model of tests/builders.py with its tokenizer as a file of its family."""
    config: Any = model.config
    heads, own = config.num_attention_heads, {k: v for k, v in _numbers(family, config).items() if v is not None}
    values = {"general.architecture": family, **{f"{family}.{key}": value for key, value in own.items()}}
    values |= _tokenizer_values() | {name.replace("__", "."): value for name, value in more.items()}
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensors[_name(name)] = _stored(family, name, tensor, heads, getattr(config, "num_key_value_heads", heads))
    path.write_bytes(gguf_bytes(values, tensors))
    return path


def _numbers(family: str, config: Any) -> dict[str, Any]:
    numbers = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
    }
    if family == "gpt2":
        return numbers | {
            "feed_forward_length": 4 * config.hidden_size,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    head_dim = getattr(config, "head_dim", None)
    return numbers | {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "rope.dimension_count": head_dim if family == "llama" else None,
        "attention.key_length": head_dim,
        "vocab_size": config.vocab_size,
    }


def _tokenizer_values() -> dict[str, Any]:
    tokenizer = make_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    control = set(tokenizer.all_special_tokens)
    merges = ["t h", "th e", "Ġ the", "Ġ S", "i s", "Ġ is"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if token in control else 1 for token in vocabulary],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _name(name: str) -> str:
    end = max((known for known in NAMES if name.endswith(known)), key=len)
    number = next((part for part in name.split(".") if part.isdigit()), None)
    return NAMES[end] if number is None else f"blk.{number}.{NAMES[end]}"


def _stored(family: str, name: str, tensor: Tensor, heads: int, key_heads: int) -> Tensor:
    """A tensor as the layout stores it: Llama's queries and keys interleaved, GPT-2's matrices turned."""
    if family == "llama" and (".q_proj." in name or ".k_proj." in name):
        count = heads if ".q_proj." in name else key_heads
        return tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
    if family == "gpt2" and tensor.dim() == 2 and ".h." in name:
        return tensor.T
    return tensor
