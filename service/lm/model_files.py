"""The files of a base model: checks of their safety, and their identities."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from service.domain.errors import Refused
from service.lm.file_identity import FileIdentity, identity_of

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
ADAPTER_FILE = "adapter_config.json"  # of a PEFT adapter, which changes or replaces the weights beside it
CONFIG_FILES = ("config.json", "generation_config.json")
MAX_JSON_BYTES = 64_000_000  # the largest tokenizer.json in use is 33 MB
CHUNK_BYTES = 1 << 22


def model_folder(path: str | Path) -> Path:
    """The folder of a model, checked. Raises Refused if it is no folder or has unsafe contents or those of an adapter."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise Refused("The model is not a local folder.", field="model")
    _refuse_export_with_window(folder)
    _refuse_code(folder)
    _refuse_adapter(folder)
    _require_safetensors(folder)
    return folder


def fingerprint_of_bytes(folder: Path) -> str:
    """The fingerprint that older releases pinned a base by: SHA-256 over the names and bytes of its files."""
    digest = hashlib.sha256()
    for path in _files(folder):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def identities(folder: Path) -> Mapping[str, FileIdentity]:
    """The identities of the model's files, by name, without reading them. Another content has another identity."""
    return {path.name: identity_of(path.stat()) for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    names = {*CONFIG_FILES, *TOKENIZER_FILES, *(path.name for path in _weights(folder)), "model.safetensors.index.json"}
    return [path for name in sorted(names) if (path := folder / name).is_file()]


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _refuse_export_with_window(folder: Path) -> None:
    """Refuse an export with a window: its weights alone, as a base, would lack the window's edits without a warning."""
    manifest = folder / "errata.json"
    if not manifest.is_file() or manifest.stat().st_size > MAX_JSON_BYTES:
        return
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        if json.loads(manifest.read_bytes()).get("interventions") is not None:
            raise Refused(
                "The model folder is an export with a window, whose edits only its load_errata.py loads: export it with "
                "--consolidate.",
                field="model",
            )


def _refuse_code(folder: Path) -> None:
    for path in sorted(folder.rglob("*.py")):
        raise Refused(f"The model folder holds code, which is never run: remove {path.name}.", field="model")
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise Refused(f"The model's file {path.name} is too large to be what its name says.", field="model")
        if "auto_map" in _keys(path):
            raise Refused(f"The model's file {path.name} asks for code of its own (auto_map), which is never run.", field="model")


def _refuse_adapter(folder: Path) -> None:
    """Refuse a PEFT adapter: without its base it is no model, and beside a whole model it would be left out without a word."""
    if not (folder / ADAPTER_FILE).is_file():
        return
    if not (folder / "config.json").is_file():
        raise Refused(
            f"The model folder is a PEFT adapter ({ADAPTER_FILE}) and no whole model: merge it into its base model"
            " (merge_and_unload), save that, and serve the result.",
            field="model",
        )
    raise Refused(
        "The model folder holds a PEFT adapter beside the model, which would not be applied: merge it (merge_and_unload), or"
        f" remove {ADAPTER_FILE}.",
        field="model",
    )


def _keys(path: Path) -> set[str]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Refused(f"The model's file {path.name} is not JSON.", field="model") from error
    return set(content) if isinstance(content, dict) else set()


def _require_safetensors(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise Refused("The model folder has no config.json.", field="model")
    if not _weights(folder):
        raise Refused("The model has no safetensors weights; pickled ones are never loaded, so convert them.", field="model")
