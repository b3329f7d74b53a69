"""The fingerprint of a base model: what of its folder is used, and not how its files write it.

It is a function of the folder's content alone. The installed transformers is not asked, because a store must open with the next
release of it too. A field of a configuration counts unless it is known to change nothing that is served.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from service.domain.errors import Refused
from service.lm.chat_template_tokens import tokens_of_template
from service.lm.safetensors_digests import digests_of_tensors

FORM = "2:"  # a fingerprint of the first form was a SHA-256 without a prefix
FIRST_FORM = re.compile("[0-9a-f]{64}")
COMMENTS = frozenset({"_comment", "comment", "//"})  # what people use in JSON, which has no comments
OF_THE_PROGRAM = frozenset(
    {"_name_or_path", "name_or_path", "transformers_version", "is_local", "local_files_only", "_commit_hash"}
)
UNUSED_IN_CONFIG = frozenset(
    {
        *COMMENTS,
        *OF_THE_PROGRAM,
        *("torch_dtype", "dtype"),  # the setting `dtype` decides, and the tensors' own are hashed
        "use_cache",  # every forward pass says whether it uses one
        "initializer_range",  # of pretraining
        *("attention_dropout", "resid_dropout", "embed_dropout", "hidden_dropout"),  # nothing is dropped: no base is ever trained
        *("attn_pdrop", "resid_pdrop", "embd_pdrop", "summary_first_dropout", "classifier_dropout"),
        *("do_sample", "temperature", "top_k", "top_p"),  # requests say how they sample
    }
)
UNUSED_IN_TOKENIZER = frozenset(
    {
        *COMMENTS,
        *OF_THE_PROGRAM,
        "chat_template",  # has a part of its own
        *("model_max_length", "padding_side", "truncation_side"),  # rows are padded here, and text is never truncated
    }
)
END = "eos_token_id"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


def _ignore() -> None:
    """Do nothing."""


def fingerprint_of(folder: Path, yield_to_answers: Callable[[], None] = _ignore) -> str:
    """The fingerprint of a model's folder; `yield_to_answers` is called between chunks of the weights.

    Raises Refused for files that are damaged, OSError for files that cannot be read.
    """
    config, generation = _read_object(folder / "config.json"), _read_object(folder / "generation_config.json")
    tokenizer_config = _read_object(folder / "tokenizer_config.json")
    parts = {
        "config": _used_config(_without(config, frozenset({END}))),
        "ends": _ends(generation, config),
        "tokenizer": {**dict(_tokenizer_parts(folder)), "config": _without(tokenizer_config, UNUSED_IN_TOKENIZER)},
        "template": _template(folder, tokenizer_config),
        "weights": digests_of_tensors(_weight_files(folder, config), yield_to_answers),
    }
    return FORM + hashlib.sha256(_canonical(parts)).hexdigest()


def is_first_form(fingerprint: str) -> bool:
    """Whether an older release made this fingerprint, of names and bytes of files (`model_files.fingerprint_of_bytes`)."""
    return FIRST_FORM.fullmatch(fingerprint) is not None


def _used_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that may change a forward pass. A configuration of several parts has that of the decoder within it."""
    used = _without(config, UNUSED_IN_CONFIG)
    decoder = used.get("text_config")
    return used | {"text_config": _used_config(decoder)} if isinstance(decoder, dict) else used


def _tokenizer_parts(folder: Path) -> Iterator[tuple[str, Any]]:
    for name in ("tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            yield name, hashlib.sha256(_canonical(_read_object(folder / name))).hexdigest()
    for name in ("merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"):
        if (folder / name).is_file():
            yield name, hashlib.sha256(_without_heading((folder / name).read_bytes())).hexdigest()


def _without_heading(data: bytes) -> bytes:
    """A file of merges without its first line, if that is the comment that such files begin with."""
    return data.partition(b"\n")[2] if data.startswith(b"#version") else data


def _template(folder: Path, tokenizer_config: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """The tokens of the chat template, which is a file of its own or a field; None without one. Of several by name the default
    one is used.
    """
    file, template = folder / "chat_template.jinja", tokenizer_config.get("chat_template")
    if file.is_file():
        template = _decode(file)
    elif isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return tokens_of_template(template) if isinstance(template, str) else None


def _ends(generation: Mapping[str, Any], config: Mapping[str, Any]) -> list[Any]:
    """The end tokens of the checkpoint, each once. Its other generation settings are never read."""
    ends: list[Any] = []
    for source in (generation, config):
        found = source.get(END)
        ends += found if isinstance(found, list) else [found]
    return [end for number, end in enumerate(ends) if end is not None and end not in ends[:number]]


def _weight_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """The files that transformers loads the weights from, by its order of preference. Raises Refused for one elsewhere."""
    named = config.get("transformers_weights")
    present = (name for name in (WEIGHTS, WEIGHTS_INDEX) if (folder / name).is_file())
    name = named if isinstance(named, str) else next(present, WEIGHTS)
    names = _shards(folder / name) if name.endswith(".index.json") else [name]
    if any(Path(name).name != name for name in names):
        raise Refused("The model's weights are partly in another folder.", field="model")
    return [folder / name for name in names]


def _shards(index: Path) -> list[str]:
    shards = _read_object(index).get("weight_map")
    if not isinstance(shards, dict):
        raise Refused(f"The model's file {index.name} names no weights.", field="model")
    return sorted({str(shard) for shard in shards.values()})


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Refused(f"The model's file {path.name} is not JSON.", field="model") from error
    if not isinstance(content, dict):
        raise Refused(f"The model's file {path.name} is not a JSON object.", field="model")
    return content


def _decode(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise Refused(f"The model's file {path.name} is not text.", field="model") from error


def _without(content: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def _canonical(content: Any) -> bytes:
    """The one JSON text of a content: keys in order, no white space."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
