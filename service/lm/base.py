"""The frozen base model: a decoder, its tokenizer, and facts about both.

Weights come from safetensors alone, and code from installed packages alone. Knows no overlays.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from jinja2 import UndefinedError
from torch import nn

from service.domain.errors import Refused, Unavailable
from service.lm.blocks import Anatomy, anatomy_of
from service.lm.file_identity import FileIdentity
from service.lm.fingerprint import fingerprint_of, is_first_form
from service.lm.model_files import fingerprint_of_bytes, identities, model_folder
from service.lm.pretrained import check_weight_headers, load_config, load_tokenizer, load_weights, make_skeleton, quieten

NO_STORE_DAY = date(2024, 1, 1)  # any day: without a store there is nothing that another day could contradict
NO_FINGERPRINT = "none"  # of a base without values, which no store is bound to
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True)
class Origin:
    """The folder of a base, and the identities of its files at loading."""

    folder: Path
    files: Mapping[str, FileIdentity]


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen model, its tokenizer, and facts about both."""

    model: nn.Module
    tokenizer: Any
    anatomy: Anatomy
    fingerprint: str  # of what is used of it; see `fingerprint.py`
    name: str
    context_length: int  # tokens of prompt and target together
    id_count: int  # ids below it have a row in the embedding and in the head; a tokenizer may have more
    device: torch.device
    dtype: torch.dtype
    eos_ids: tuple[int, ...]  # any of these ends an answer; targets end with the first
    bos_id: int | None  # the token that the tokenizer adds before a text, if any
    start_id: int | None  # the first token of sampled sentences
    pad_id: int  # always masked; any token serves
    control_ids: frozenset[int]  # ids that no user text may become
    surfaces: tuple[str, ...]
    has_leading_space: bool  # a target after a prompt starts with an encoded space
    origin: Origin | None = None  # None: built in memory
    part_of: str | None = None  # the family of the composite checkpoint whose text part this is
    day: date = NO_STORE_DAY  # what a chat template that reads the clock is told, always: a store's day is that of its version 0
    tokenizer_lock: threading.Lock = field(default_factory=threading.Lock)  # fast tokenizers change their state during encoding

    def is_pinned_as(self, fingerprint: str) -> bool:
        """Whether a store that pinned this fingerprint is of this base. One that an older release pinned is compared with the
        bytes of the files, which are read again. Raises Unavailable if they changed since they were loaded.
        """
        if fingerprint == self.fingerprint or self.origin is None or not is_first_form(fingerprint):
            return fingerprint == self.fingerprint
        is_same = read_files(fingerprint_of_bytes, self.origin.folder) == fingerprint
        _require_unchanged(self.origin)
        return is_same


def load_base(path: str | Path, *, name: str | None = None, device: str = "auto", dtype: str = "auto") -> Base:
    """Load a Hugging Face decoder from a folder. `name`: what the base is called, by default its path. With `auto`: bf16 on CUDA,
    fp32 on the CPU.

    The tensors are copies in the memory of this process: later changes of the files change no answer. Raises Refused for pickled
    weights, code beside the weights and families of unknown structure, Corrupt for incomplete weights, and Unavailable if a file
    changes during loading: fingerprint and tensors would be of different bytes.
    """
    quieten()
    folder = model_folder(path)
    torch_device = find_device(device)
    origin = Origin(folder, identities(folder))
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    anatomy_of(make_skeleton(config))  # what is refused by its structure is refused before its weights are read, which takes long
    model = load_weights(folder, config, _find_dtype(dtype, torch_device))
    _copy_mapped_tensors(model.to(torch_device))
    fingerprint = read_files(fingerprint_of, folder)
    _require_unchanged(origin)
    base = build_base(model, tokenizer, name=name or str(path), fingerprint=fingerprint, origin=origin)
    return replace(base, part_of=config.part_of)


def sketch_base(path: str | Path) -> Base:
    """The base of a folder without the values of its weights, in a moment: to check what can be served and edited before a start
    reads them. Raises what `load_base` raises before it reads the weights.
    """
    quieten()
    folder = model_folder(path)
    config = load_config(folder)
    check_weight_headers(folder)
    base = build_base(make_skeleton(config), load_tokenizer(folder), name=str(path), fingerprint=NO_FINGERPRINT)
    return replace(base, part_of=config.part_of)


def build_base(
    model: nn.Module, tokenizer: Any, *, name: str = "test", fingerprint: str | None = None, origin: Origin | None = None
) -> Base:
    """A base of a model and tokenizer in memory. Freezes the model and sets evaluation mode."""
    model.eval()
    model.requires_grad_(False)
    anatomy = anatomy_of(model)
    weight = next(model.parameters())
    id_count = _id_count(model)
    eos_ids = _eos_ids(model, tokenizer, id_count)
    bos_token = tokenizer.bos_token_id if _is_known(tokenizer.bos_token_id, id_count) else None
    return Base(
        model=model,
        tokenizer=tokenizer,
        anatomy=anatomy,
        fingerprint=fingerprint or _fingerprint_in_memory(model, tokenizer),
        name=name,
        context_length=_context_length(model.config),
        id_count=id_count,
        device=weight.device,
        dtype=weight.dtype,
        eos_ids=eos_ids,
        bos_id=bos_token if bos_token is not None and tokenizer("a").input_ids[:1] == [bos_token] else None,
        start_id=bos_token if bos_token is not None else next(iter(eos_ids), None),
        pad_id=next(i for i in (tokenizer.pad_token_id, *eos_ids, 0) if _is_known(i, id_count)),
        control_ids=_control_ids(tokenizer),
        surfaces=("raw", "chat") if _has_chat(tokenizer, id_count) else ("raw",),
        has_leading_space=_has_leading_space(tokenizer),
        origin=origin,
    )


def _copy_mapped_tensors(model: nn.Module) -> None:
    """Copy every tensor that maps a file, one by one, so that at most one tensor is in memory twice.

    Writing to a mapped file would change the tensors at once, and truncating it would end the process. On other devices than the
    CPU tensors are copies already.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def read_files(hash_files: Callable[[Path], str], folder: Path) -> str:
    """What `hash_files` makes of a model's folder. Raises Unavailable if the files cannot be read any more."""
    try:
        return hash_files(folder)
    except OSError as error:
        raise Unavailable("The model's files cannot be read any more; put them back, then start again.") from error


def _require_unchanged(origin: Origin) -> None:
    if identities(origin.folder) != origin.files:
        raise Unavailable("The model's files changed while they were read; wait until they are written, then start again.")


def find_device(device: str) -> torch.device:
    """The device that a setting names. Raises Refused for one that torch does not know or does not have."""
    has_cuda = torch.cuda.is_available()
    try:
        torch_device = torch.device(("cuda" if has_cuda else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise Refused("The device is not one that torch knows.", field="device") from error
    if torch_device.type == "cuda" and not has_cuda:
        raise Refused("The device is cuda, and torch finds none here.", field="device")
    return torch_device


def default_dtype(device: torch.device) -> torch.dtype:
    """The dtype that is served where nobody measured or chose one: bf16 on CUDA, fp32 on the CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def name_of(dtype: torch.dtype) -> str:
    """A dtype as settings and users name it, such as `float32`."""
    return str(dtype).removeprefix("torch.")


def _find_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return default_dtype(device)
    if dtype not in DTYPES:
        raise Refused("The dtype must be auto, float32, bfloat16 or float16.", field="dtype")
    return DTYPES[dtype]


def _context_length(config: Any) -> int:
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length <= 0:
        raise Refused("The base model's configuration does not say how many tokens its context holds.", field="model")
    return length


def _id_count(model: Any) -> int:
    """The number of ids that have both a row in the embedding and one in the head."""
    return min(part.weight.shape[0] for part in (model.get_input_embeddings(), model.get_output_embeddings()))


def _is_known(token_id: Any, id_count: int) -> bool:
    """Whether this is a token that the model has a row for. Published tokenizers name tokens that were added later."""
    return isinstance(token_id, int) and 0 <= token_id < id_count


def _has_chat(tokenizer: Any, id_count: int) -> bool:
    """Whether there is a chat template, and the model has a row for each token of it. Without one no edit could be made.

    Raises Refused for a template that uses a name which nobody defines.
    """
    if not getattr(tokenizer, "chat_template", None):
        return False
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    except UndefinedError as error:
        raise Refused(
            "The model's chat template uses a name that transformers does not define, such as now(): mend it, or remove it.",
            field="model",
        ) from error
    except Exception:  # a template is a program of the checkpoint's author; requests for the surface are told that it refuses
        return True
    return max(tokenizer(text, add_special_tokens=False).input_ids, default=0) < id_count


def _eos_ids(model: Any, tokenizer: Any, id_count: int) -> tuple[int, ...]:
    """The tokenizer's end token first, because trained targets end with it; then all other end tokens of the checkpoint."""
    end_ids = [tokenizer.eos_token_id]
    for source in (getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        end_ids += ids if isinstance(ids, (list, tuple)) else [ids]
    return tuple(dict.fromkeys(i for i in end_ids if _is_known(i, id_count)))


def _control_ids(tokenizer: Any) -> frozenset[int]:
    """Special tokens, except the unknown token, which ordinary text may become."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset((added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id})


def _has_leading_space(tokenizer: Any) -> bool:
    """Whether the tokens of "b" in "a b" are those of " b" (byte-level) not of "b" (a tokenizer that adds the space itself)."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    rest = encode("a b")[len(encode("a")) :]
    return encode("b") != rest


def _fingerprint_in_memory(model: nn.Module, tokenizer: Any) -> str:
    digest = hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
