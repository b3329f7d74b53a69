"""The parts of a model folder, as transformers loads them: configuration, tokenizer and weights. Its many kinds of exceptions
become one error each of Errata's.

Of a composite checkpoint the parts are those of its text part.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from service.domain.errors import Corrupt, Refused
from service.lm import sentencepiece_file, text_part


@dataclass(frozen=True)
class DecoderConfig:
    """The configuration of the decoder in a folder, and the family of the composite checkpoint that it is a part of, if any."""

    own: Any
    part_of: str | None


def quieten() -> None:
    """Let transformers speak through the log alone, for this process. A server's log is no terminal, and holds JSON lines."""
    transformers_logging.disable_progress_bar()
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()


def load_config(folder: Path) -> DecoderConfig:
    """Raises Refused for a configuration that transformers does not know, and for a composite one without a text part."""
    config = _load(AutoConfig.from_pretrained, folder, "configuration")
    text = text_part.find_text_config(config)
    if text is None:
        return DecoderConfig(config, None)
    text_part.require_text_weights(_names(folder), config.model_type)
    return DecoderConfig(text, config.model_type)


def load_tokenizer(folder: Path) -> Any:
    """Raises Refused for a tokenizer that cannot be loaded here, or would be loaded wrongly."""
    is_sentencepiece = sentencepiece_file.is_alone(folder)
    if is_sentencepiece:
        sentencepiece_file.check_can_be_read(folder)
    tokenizer = _load(AutoTokenizer.from_pretrained, folder, "tokenizer")
    if is_sentencepiece:
        sentencepiece_file.check_reads_alike(folder, tokenizer)
    return tokenizer


def load_weights(folder: Path, config: DecoderConfig, dtype: torch.dtype) -> nn.Module:
    """The decoder with its weights, all of them from the files. Raises Corrupt if any is missing."""
    options = {
        "config": config.own,
        "dtype": dtype,
        "use_safetensors": True,
        "output_loading_info": True,
        **_attention(config.own),
    }
    if config.part_of is None:
        model, report = _load(AutoModelForCausalLM.from_pretrained, folder, "model", **options)
    else:
        with _errors_alone():  # not a table of every tensor of the towers
            model, report = _load(
                AutoModelForCausalLM.from_pretrained, folder, "model", key_mapping=text_part.KEY_MAPPING, **options
            )
    if report["missing_keys"] or report["mismatched_keys"]:
        raise Corrupt("The base model's weight files lack tensors that its configuration asks for.")
    if config.part_of is not None:
        text_part.require_all_text_weights_read(_names(folder), report["unexpected_keys"])
        text_part.forget_prefixes(model)
    return model


def make_skeleton(config: DecoderConfig) -> nn.Module:
    """The decoder without values: its tensors have shapes and no memory."""
    with torch.device("meta"):
        return _call(AutoModelForCausalLM.from_config, config.own, part="model", **_attention(config.own))


@contextmanager
def _errors_alone() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _load(load: Any, folder: Path, part: str, **options: Any) -> Any:
    return _call(load, folder, part=part, trust_remote_code=False, local_files_only=True, **options)


def _call(load: Any, source: Any, *, part: str, **options: Any) -> Any:
    try:
        return load(source, **options)
    except SafetensorError as error:
        raise Corrupt("The base model's weight files are damaged.") from error
    except MemoryError:
        raise
    except Exception as error:  # transformers raises many unrelated classes; each means that it cannot take the files
        raise Refused(f"The base model's {part} is not one that the installed transformers can load.", field="model") from error


def check_weight_headers(folder: Path) -> None:
    """Read the headers of a folder's weight files. Raises Corrupt if one is damaged, or a file shorter than its header says."""
    _names(folder)


def _names(folder: Path) -> list[str]:
    """The names of all tensors in the files of a folder."""
    try:
        return [name for path in sorted(folder.glob("*.safetensors")) for name in _names_in(path)]
    except (SafetensorError, OSError) as error:
        raise Corrupt("The base model's weight files are damaged.") from error


def _names_in(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _attention(config: Any) -> dict[str, str]:
    """Options of attention: soft-capped attention (Gemma-2) needs the eager form; elsewhere transformers chooses sdpa."""
    is_capped = getattr(config, "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if is_capped else {}
