"""Neutral sentences on disk: read from a file, or sampled by the base model and written there, once for a base and its settings.

Sampling takes minutes on a large model. It gives way to answers between two tokens. Each complete part is kept, so that a process
that ends in the middle leaves the rest to the next one.
"""

import base64
import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from service.domain.errors import Unavailable
from service.editors.neutral import CANDIDATES, NeutralSentences, continue_sentences, cuts_of, keep_confident, make_sentence
from service.editors.neutral_settings import NeutralSettings
from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.overlay import View, make_view
from service.lm.prompts import row_from_ids
from service.lm.scoring import sample_sentences

PROGRESS_INTERVAL_S = 5.0
SAMPLING, CHOOSING = "sampling neutral sentences", "choosing the canary"
_FORMAT = 2
_SAMPLED = 0.95  # the share of progress when all sentences are sampled
log = structlog.get_logger("errata.neutral")


def load_or_sample_neutral(
    base: Base,
    folder: Path,
    *,
    settings: NeutralSettings,
    view: View | None = None,
    shipped: Path | None = None,
    hooks: Hooks | None = None,
) -> NeutralSentences:
    """The neutral sentences of a base: read from `folder`, or from the folder `shipped` that came with the model, or sampled and
    written to `folder`.

    A file that cannot be read counts as absent: the same sentences are sampled again. Raises Unavailable if the folder cannot be
    written, FitCancelled if `hooks` say so; then the next call goes on where this one stopped.
    """
    hooks = hooks or Hooks()
    name = f"{_key(base, settings)}.json"
    stored = _read(folder / name) or (None if shipped is None else _read(shipped / name))
    if stored is None:
        stored = _sample(base, view or make_view(base), settings, folder / name, hooks)
        _write(folder / name, stored)
        with contextlib.suppress(OSError):
            _partial(folder / name).unlink(missing_ok=True)
    sentences = tuple(make_sentence(base, ids) for ids in stored["sentences"])
    canary = tuple(row_from_ids(base, ids, cut) for ids, cut in stored["canary"])
    return NeutralSentences(base, tuple(sentence for sentence in sentences if sentence.cuts), canary)


def has_neutral(base: Base, folder: Path, *, settings: NeutralSettings, shipped: Path | None = None) -> bool:
    """Whether the sentences need not be sampled."""
    name = f"{_key(base, settings)}.json"
    return any(place is not None and _read(place / name) is not None for place in (folder, shipped))


@dataclass
class _Sampled:
    """The sentences sampled so far, and the state of the generator behind them."""

    sentences: list[tuple[int, ...]]
    generator: torch.Generator


def _key(base: Base, settings: NeutralSettings) -> str:
    text = json.dumps([_FORMAT, base.fingerprint, settings.model_dump()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sample(base: Base, view: View, settings: NeutralSettings, path: Path, hooks: Hooks) -> dict[str, list]:
    """Distinct sentences; the first ones become the canary, so that no sentence is in both parts."""
    candidates = CANDIDATES * settings.canary
    count = candidates + settings.sentences
    sampled = _sample_ids(base, count, settings, path, hooks) if count else []
    distinct = [ids for ids in dict.fromkeys(tuple(ids) for ids in sampled) if cuts_of(base, ids)]
    generator = torch.Generator().manual_seed(settings.seed)
    log.info("choosing the canary among them", of=candidates)
    hooks.progress(_SAMPLED, CHOOSING)
    continued = continue_sentences(base, view, distinct[:candidates], generator, hooks.begin_step)
    canary = keep_confident(base, view, continued, settings.canary)
    hooks.progress(1.0, CHOOSING)
    return {"canary": canary, "sentences": [list(ids) for ids in distinct[candidates:]]}


def _sample_ids(base: Base, count: int, settings: NeutralSettings, path: Path, hooks: Hooks) -> list[tuple[int, ...]]:
    """Sample `count` sentences, with log lines on the progress. Each part of `settings.batch` sentences is kept in a file."""
    logged_at = time.monotonic()
    sampled = _resume(path, settings)
    log.info("sampling neutral sentences, once for this base model", of=count, done=len(sampled.sentences))
    parts = sample_sentences(
        base,
        count - len(sampled.sentences),
        sampled.generator,
        max_tokens=settings.tokens,
        batch=settings.batch,
        yield_to_answers=hooks.begin_step,
    )
    hooks.progress(_SAMPLED * len(sampled.sentences) / count, SAMPLING)
    for part in parts:
        sampled.sentences += part
        hooks.progress(_SAMPLED * len(sampled.sentences) / count, SAMPLING)
        if len(sampled.sentences) < count:
            _keep(path, sampled)
        if time.monotonic() - logged_at >= PROGRESS_INTERVAL_S:
            logged_at = time.monotonic()
            log.info(SAMPLING, done=len(sampled.sentences), of=count)
    return sampled.sentences


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _keep(path: Path, sampled: _Sampled) -> None:
    state = base64.b64encode(sampled.generator.get_state().numpy().tobytes()).decode()
    _write(_partial(path), {"sampled": [list(ids) for ids in sampled.sentences], "generator": [state]})


def _resume(path: Path, settings: NeutralSettings) -> _Sampled:
    """What an earlier process has kept, or the beginning. A file that cannot be read counts as absent."""
    generator = torch.Generator().manual_seed(settings.seed)
    try:
        kept = json.loads(_partial(path).read_text(encoding="utf-8"))
        sentences, (state,) = kept["sampled"], kept["generator"]
        if len(sentences) % settings.batch or not all(_is_ids(ids) for ids in sentences):
            raise ValueError
        generator.set_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return _Sampled([], torch.Generator().manual_seed(settings.seed))
    return _Sampled([tuple(ids) for ids in sentences], generator)


def _read(path: Path) -> dict[str, list] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = [(ids, 1) for ids in stored["sentences"]] + [(ids, cut) for ids, cut in stored["canary"]]
        is_sound = all(_is_ids(ids) and 0 < cut < len(ids) for ids, cut in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if is_sound else None


def _is_ids(ids: object) -> bool:
    return isinstance(ids, list) and len(ids) > 0 and all(isinstance(token, int) and token >= 0 for token in ids)


def _write(path: Path, stored: dict[str, list]) -> None:
    """Write the file atomically: a reader never sees half a file."""
    try:
        _replace(path, stored)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise Unavailable(
            f"the data folder's neutral/ cannot be written to: {reason}; see that it may be, or give another data_dir"
        ) from error


def _replace(path: Path, stored: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(stored, file)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
