"""A version as a plain Hugging Face checkpoint: sharded safetensors, tokenizer, configuration, and a manifest.

Replaced tensors are written in place of the base model's, which does not change in memory or on disk. No checkpoint can hold the
interventions of a window, so they are written beside it with a loader. Then the checkpoint is in an inner folder, and the outer
folder is one that `from_pretrained` refuses: it would load the weights without the window's edits and without a warning. The
write goes to a temporary folder: fsync of every file, rename, fsync of the parent folder. So under the final name there is a
whole export or nothing.
"""

import copy
import errno
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig

from service.domain.errors import Conflict, Unavailable
from service.lm import export_card, load_errata, scope
from service.lm.base import Base, name_of
from service.lm.durable_files import synchronise
from service.lm.export_settings import SHARD_SIZE
from service.lm.intervention import Adapter
from service.lm.overlay import Overlay, make_view
from service.lm.scope import Scope
from service.lm.stated_edits import GAPS, MOST_STATEMENTS, NOTHING_STATED, StatedEdit, StatedEdits

FORMAT = 1
MANIFEST = load_errata.MANIFEST
INTERVENTIONS = "interventions.safetensors"
LOADER = "load_errata.py"
SCOPE, SCOPE_CODE = "scope.json", "errata_scope.py"
CONTEXT = "context.json"
WEIGHTS_STAGE, WEIGHTS_SHARE = "writing the weights", 0.8  # a stage, and the share of the work at its end
PROGRESS_INTERVAL_S = 1.0
NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ExportResult:
    """The folder of an export, its number of files and its size."""

    path: Path
    files: int
    bytes: int


def _ignore_progress(_share: float, _stage: str) -> None:
    """Do nothing."""


def write_export(
    base: Base,
    overlay: Overlay,
    folder: Path,
    *,
    manifest: Mapping[str, Any],
    stated: StatedEdits = NOTHING_STATED,
    max_shard_size: str = SHARD_SIZE,
    temporary: Path | None = None,
    progress: Callable[[float, str], None] = _ignore_progress,
) -> ExportResult:
    """Write the base model under an overlay to `folder`, which must not exist; `manifest` becomes part of `errata.json`. The
    edits that the version states are written beside it.

    `temporary` is a folder on the same disk, by default beside `folder`; its contents are removed. `progress` is called with the
    finished share and may raise to stop the export: then, as after every failure, no file is left. Raises Conflict if the final
    name is in use, Unavailable if the disk refuses the write.
    """
    temporary = temporary or folder.with_name(f".{folder.name}.partial")
    try:
        if folder.exists():
            raise Conflict("there is something under this name already; give another one", field="name")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _write(base, overlay, temporary, manifest, stated, max_shard_size, progress)
            result = _make_durable(temporary, folder)
            progress(0.95, "moving it into its place")
            _rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise Unavailable(_error_message(error)) from error
    return result


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an export; None if the folder is no whole export."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _write(
    base: Base,
    overlay: Overlay,
    folder: Path,
    manifest: Mapping[str, Any],
    stated: StatedEdits,
    max_shard_size: str,
    progress: Callable[[float, str], None],
) -> None:
    progress(0.0, WEIGHTS_STAGE)
    checkpoint = folder if overlay.adapter is None else folder / export_card.WEIGHTS_FOLDER
    checkpoint.mkdir(exist_ok=True)
    with _report_progress(base, checkpoint, progress):
        _write_model(base, overlay, checkpoint, max_shard_size)
    progress(WEIGHTS_SHARE, "writing the tokenizer")
    with base.tokenizer_lock:
        base.tokenizer.save_pretrained(checkpoint)
    interventions = None if overlay.adapter is None else _write_interventions(base, overlay.adapter, folder)
    content = {
        "format": FORMAT,
        **manifest,
        "dtype": name_of(base.dtype),
        "attention": _attention(base),
        "interventions": interventions,
        "context": _write_context(stated.edits, folder) if stated.edits else None,
    }
    for target in {folder, checkpoint}:  # the inner folder may be copied alone, so it has the manifest too
        (target / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
    (folder / export_card.CARD).write_text(export_card.model_card(content), encoding="utf-8")
    progress(0.85, "waiting for the disk")


@contextmanager
def _report_progress(base: Base, folder: Path, progress: Callable[[float, str], None]) -> Iterator[None]:
    """Call `progress` with the share of the weights' bytes written, from a thread: transformers writes all of them in one call.

    An exception of `progress` cannot stop that call; the next call of `progress` after it raises again.
    """
    total = sum(tensor.nbytes for tensor in base.model.parameters())
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(PROGRESS_INTERVAL_S):
            with suppress(Exception):
                written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
                progress(WEIGHTS_SHARE * min(1.0, written / total), WEIGHTS_STAGE)

    reporter = threading.Thread(target=report, name="errata-export", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


def _write_model(base: Base, overlay: Overlay, folder: Path, max_shard_size: str) -> None:
    model: Any = make_view(base, overlay.tensors).model  # a model of its own: saving writes into the configuration
    model.config = copy.deepcopy(model.config)
    model.generation_config = _generation_config(base)
    model.save_pretrained(folder, max_shard_size=max_shard_size)


def _generation_config(base: Base) -> GenerationConfig:
    """The begin, end and padding tokens alone. Errata ignores a checkpoint's other generation settings (penalties, sampling,
    lengths); with them the export would give other answers.
    """
    ends = list(base.eos_ids)  # an answer ends in the export as it does here
    eos_token_id = (ends[0] if len(ends) == 1 else ends) if ends else None
    return GenerationConfig(bos_token_id=base.tokenizer.bos_token_id, eos_token_id=eos_token_id, pad_token_id=base.pad_id)


def _write_interventions(base: Base, adapter: Adapter, folder: Path) -> dict[str, Any]:
    tensors = {
        f"{block}.{name}": tensor.detach().cpu().contiguous().clone()
        for block, intervention in adapter.interventions.items()
        for name, tensor in intervention.tensors().items()
    }
    save_file(tensors, folder / INTERVENTIONS)
    shutil.copyfile(load_errata.__file__, folder / LOADER)
    (folder / "config.json").write_text(json.dumps({"model_type": export_card.UNLOADABLE_MODEL_TYPE}) + "\n")
    bos = base.tokenizer.bos_token_id
    entry = {"checkpoint": export_card.WEIGHTS_FOLDER, "file": INTERVENTIONS, "loader": LOADER}
    last = adapter.last
    return entry | {
        "blocks": base.anatomy.blocks_name,
        "last": last.count,
        "at": last.at,
        "tail": list(last.tail),
        "bos": bos,
        "scope": None if adapter.scope is None else _write_scope(base, adapter.scope, folder),
    }


def _write_scope(base: Base, own: Scope, folder: Path) -> dict[str, str]:
    """Write the prompts that the interventions act on, and a copy of the code that tells them."""
    content = {"scope": json.loads(own.to_json()), "control": sorted(base.control_ids)}
    (folder / SCOPE).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    shutil.copyfile(scope.__file__, folder / SCOPE_CODE)
    return {"file": SCOPE, "code": SCOPE_CODE}


def _write_context(stated: Sequence[StatedEdit], folder: Path) -> dict[str, Any]:
    """Write the edits that the version states, the code that tells their prompts, and the loader, which states them."""
    content = [
        {
            "statement": each.statement,
            "scope": json.loads(each.scope.to_json()),
            "surfaces": list(each.surfaces),
            "prompt": each.prompt,
        }
        for each in stated
    ]
    (folder / CONTEXT).write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copyfile(scope.__file__, folder / SCOPE_CODE)
    shutil.copyfile(load_errata.__file__, folder / LOADER)
    return {"file": CONTEXT, "code": SCOPE_CODE, "loader": LOADER, "edits": len(stated), "most": MOST_STATEMENTS, "gaps": GAPS}


def _attention(base: Base) -> str | None:
    """The form of attention that a loader must name; None if transformers' own choice computes the same."""
    return "eager" if getattr(base.model.config, "attn_logit_softcapping", None) is not None else None


def _make_durable(temporary: Path, folder: Path) -> ExportResult:
    """Synchronise every file and folder of an export, and count its bytes."""
    files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
    mode = (temporary / MANIFEST).stat().st_mode  # safetensors makes its files readable to the owner alone
    for path in files:
        path.chmod(mode)
        synchronise(path)
    for inner in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
        synchronise(inner)
    return ExportResult(folder, len(files), sum(path.stat().st_size for path in files))


def _rename(temporary: Path, folder: Path) -> None:
    """Rename and synchronise. Fails if the final name has come into use meanwhile, unless it is an empty folder."""
    temporary.rename(folder)
    synchronise(folder.parent)


def _error_message(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # safetensors puts the system's error number into its message
        with suppress(AttributeError, ValueError):
            number = int(re.search(r"os error (\d+)", str(error)).group(1))  # type: ignore[union-attr]
    if number in NO_ROOM_ERRORS:
        return "the export could not be written: the disk has no room for it"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the export could not be written: the folder of exports may not be written to"
    return "the export could not be written; see that the folder of exports is there and may be written to"
