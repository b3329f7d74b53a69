"""A version as a plain Hugging Face checkpoint: sharded safetensors, tokenizer, configuration, and a manifest of what it is.

Replaced tensors are written in the place of the base model's, which stays as it is in memory and on disk. What no checkpoint can
hold, the interventions of a window, lies beside it with a loader; then the checkpoint is in a folder of its own within, and what
lies above is refused by `from_pretrained`, which would leave edits out without a word. The way of a write is that of a
checkpoint: a temporary folder, fsync of every file, rename, fsync of the folder above; so under the final name there is a whole
export or nothing.
"""

import copy
import errno
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig

from service.domain.errors import Conflict, Unavailable
from service.lm import export_card, load_errata
from service.lm.base import Base
from service.lm.durable_files import synchronise
from service.lm.export_settings import SHARD_SIZE
from service.lm.intervention import Adapter
from service.lm.overlay import Overlay, make_view

FORMAT = 1
MANIFEST = load_errata.MANIFEST
INTERVENTIONS = "interventions.safetensors"
LOADER = "load_errata.py"
WRITING, BY_WEIGHTS = "writing the weights", 0.8  # a stage, and the share of the work that it ends at
LOOK_S = 1.0
ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ExportResult:
    """What an export came to."""

    path: Path
    files: int
    bytes: int


def _say_nothing(_share: float, _stage: str) -> None:
    """Nobody follows."""


def write_export(
    base: Base,
    overlay: Overlay,
    folder: Path,
    *,
    manifest: Mapping[str, Any],
    max_shard_size: str = SHARD_SIZE,
    temporary: Path | None = None,
    progress: Callable[[float, str], None] = _say_nothing,
) -> ExportResult:
    """Write the base model under an overlay to `folder`, which must not exist; `manifest` is what `errata.json` says of it.

    `temporary` is a folder on the same disk, beside `folder` unless given; what lies there is removed. `progress` is told the
    share done and may raise to stop: then, as after every failure, nothing is left. Raises Conflict if there is something under
    the final name, Unavailable if the disk does not take it.
    """
    temporary = temporary or folder.with_name(f".{folder.name}.partial")
    try:
        if folder.exists():
            raise Conflict("there is something under this name already; give another one", field="name")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _write(base, overlay, temporary, manifest, max_shard_size, progress)
            written = _made_durable(temporary, folder)
            progress(0.95, "moving it into its place")
            _put(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise Unavailable(_sentence(error)) from error
    return written


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself; None for a folder that is no whole export."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _write(
    base: Base,
    overlay: Overlay,
    folder: Path,
    manifest: Mapping[str, Any],
    max_shard_size: str,
    progress: Callable[[float, str], None],
) -> None:
    progress(0.0, WRITING)
    checkpoint = folder if overlay.adapter is None else folder / export_card.WEIGHTS
    checkpoint.mkdir(exist_ok=True)
    with _watched(base, checkpoint, progress):
        _write_model(base, overlay, checkpoint, max_shard_size)
    progress(BY_WEIGHTS, "writing the tokenizer")
    with base.tokenizer_lock:
        base.tokenizer.save_pretrained(checkpoint)
    described = None if overlay.adapter is None else _write_interventions(base, overlay.adapter, folder)
    said = {
        "format": FORMAT,
        **manifest,
        "dtype": str(base.dtype).removeprefix("torch."),
        "attention": _attention(base),
        "interventions": described,
    }
    for place in {folder, checkpoint}:  # whoever takes the inner folder away is told what it is, too
        (place / MANIFEST).write_text(json.dumps(said, indent=1) + "\n")
    (folder / export_card.CARD).write_text(export_card.model_card(said), encoding="utf-8")
    progress(0.85, "waiting for the disk")


@contextmanager
def _watched(base: Base, folder: Path, progress: Callable[[float, str], None]) -> Iterator[None]:
    """Tell `progress` how many of the weights' bytes are written; from a thread, as transformers writes all of them in one call.

    It cannot stop that call: what it raises is raised again by the next `progress` after it.
    """
    whole = sum(tensor.nbytes for tensor in base.model.parameters())
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            with suppress(Exception):
                written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
                progress(BY_WEIGHTS * min(1.0, written / whole), WRITING)

    watcher = threading.Thread(target=look, name="errata-export", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _write_model(base: Base, overlay: Overlay, folder: Path, max_shard_size: str) -> None:
    model: Any = make_view(base, overlay.tensors).model  # of one's own: saving writes into the configuration
    model.config = copy.deepcopy(model.config)
    model.generation_config = _generation_config(base)
    model.save_pretrained(folder, max_shard_size=max_shard_size)


def _generation_config(base: Base) -> GenerationConfig:
    """Where answers begin and end, and no more: a checkpoint's other habits of generating (penalties, sampling, lengths) are not
    looked at here, so with them the export would answer otherwise.
    """
    ends = list(base.eos_ids)  # whatever ends an answer here ends it there
    ending = (ends[0] if len(ends) == 1 else ends) if ends else None
    return GenerationConfig(bos_token_id=base.tokenizer.bos_token_id, eos_token_id=ending, pad_token_id=base.pad_id)


def _write_interventions(base: Base, adapter: Adapter, folder: Path) -> dict[str, Any]:
    tensors = {
        f"{block}.{name}": tensor.detach().cpu().contiguous().clone()
        for block, intervention in adapter.interventions.items()
        for name, tensor in intervention.tensors().items()
    }
    save_file(tensors, folder / INTERVENTIONS)
    shutil.copyfile(load_errata.__file__, folder / LOADER)
    (folder / "config.json").write_text(json.dumps({"model_type": export_card.REFUSED}) + "\n")
    bos = base.tokenizer.bos_token_id
    described = {"checkpoint": export_card.WEIGHTS, "file": INTERVENTIONS, "loader": LOADER}
    return described | {"blocks": base.anatomy.blocks_name, "last": adapter.last, "bos": bos}


def _attention(base: Base) -> str | None:
    """The form of attention that must be asked for by name; None where transformers' own choice computes the same."""
    return "eager" if getattr(base.model.config, "attn_logit_softcapping", None) is not None else None


def _made_durable(temporary: Path, folder: Path) -> ExportResult:
    """Every byte of a folder on the disk, and how many there are."""
    files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
    mode = (temporary / MANIFEST).stat().st_mode  # safetensors lets nobody else read what it writes
    for path in files:
        path.chmod(mode)
        synchronise(path)
    for inner in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
        synchronise(inner)
    return ExportResult(folder, len(files), sum(path.stat().st_size for path in files))


def _put(temporary: Path, folder: Path) -> None:
    """Rename. An empty folder that came up meanwhile would be replaced, anything else makes it fail."""
    temporary.rename(folder)
    synchronise(folder.parent)


def _sentence(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # safetensors words the system's error
        with suppress(AttributeError, ValueError):
            number = int(re.search(r"os error (\d+)", str(error)).group(1))  # type: ignore[union-attr]
    if number in ROOM:
        return "the export could not be written: the disk has no room for it"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the export could not be written: the folder of exports may not be written to"
    return "the export could not be written; see that the folder of exports is there and may be written to"
