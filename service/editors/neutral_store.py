"""Neutral sentences on disk: read from a file, or sampled by the base model and written there, once for a base and its settings.

Sampling takes minutes on a large model. It gives way to answers between two tokens. Each complete part is kept, so that a process
that ends in the middle leaves the rest to the next one.

The first sentences are held out, and the first part of those that fits use are the next. So both are the same before and after
the rest is sampled: a fit with the first part can be repeated later, and acceptance asks the same questions all the time.
"""

import base64
import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
import torch

from service.domain.errors import Unavailable
from service.editors.neutral import NeutralSentences, cuts_of, make_sentence
from service.editors.neutral_settings import NeutralSettings
from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.scoring import sample_sentences

PROGRESS_INTERVAL_S = 5.0
SAMPLING = "sampling neutral sentences"
_FORMAT = 3
_Stored = dict[str, list]
log = structlog.get_logger("errata.neutral")


def load_or_sample_neutral(
    base: Base,
    folder: Path,
    *,
    settings: NeutralSettings,
    shipped: Path | None = None,
    hooks: Hooks | None = None,
) -> NeutralSentences:
    """The neutral sentences of a base, as `iterate_neutral` reads or samples them, once all are there."""
    *_, whole = iterate_neutral(base, folder, settings=settings, shipped=shipped, hooks=hooks)
    return whole.neutral


@dataclass(frozen=True)
class NeutralPart:
    """The neutral sentences that are there. `of` is the number for which the settings ask: a few of these are repetitions."""

    neutral: NeutralSentences
    of: int
    is_whole: bool


def iterate_neutral(
    base: Base,
    folder: Path,
    *,
    settings: NeutralSettings,
    shipped: Path | None = None,
    hooks: Hooks | None = None,
) -> Iterator[NeutralPart]:
    """The first part of the neutral sentences of a base as soon as it is there, then all of them. Only all of them if they can be
    read from `folder` or from the folder `shipped` that came with the model; else they are sampled and written to `folder`.

    A file that cannot be read counts as absent: the same sentences are sampled again. Raises Unavailable if the folder cannot be
    written, FitCancelled if `hooks` say so; then the next call goes on where this one stopped.
    """
    hooks = hooks or Hooks()
    name = f"{_key(base.fingerprint, settings)}.json"
    stored = _read(folder / name) or (None if shipped is None else _read(shipped / name))
    if stored is not None:
        yield NeutralPart(_build(base, stored), settings.sentences, is_whole=True)
        return
    sampling = _Sampling(base, settings, folder / name, hooks)
    first = None
    for _ in sampling.run():
        if first is None and sampling.has_first_part():
            first = _build(base, sampling.choose(settings.first_part))
            yield NeutralPart(first, settings.sentences, is_whole=False)
    stored = sampling.choose(None)
    _write(folder / name, json.dumps(stored))
    with contextlib.suppress(OSError):
        _partial(folder / name).unlink(missing_ok=True)
    whole = _build(base, stored)
    yield NeutralPart(whole if first is None else replace(first, sentences=whole.sentences), settings.sentences, is_whole=True)


def _build(base: Base, stored: _Stored) -> NeutralSentences:
    made = ([make_sentence(base, ids) for ids in stored[part]] for part in ("sentences", "held_out"))
    sentences, held_out = (tuple(sentence for sentence in part if sentence.cuts) for part in made)
    return NeutralSentences(base, sentences, held_out)


def has_neutral(base: Base, folder: Path, *, settings: NeutralSettings, shipped: Path | None = None) -> bool:
    """Whether the sentences need not be sampled."""
    name = f"{_key(base.fingerprint, settings)}.json"
    return any(place is not None and _read(place / name) is not None for place in (folder, shipped))


def adopt_neutral(former: str, base: Base, folder: Path, *, settings: NeutralSettings) -> None:
    """Keep what was sampled under a former fingerprint of the base under its present one too. Raises Unavailable if the folder
    cannot be written.
    """
    before, now = (folder / f"{_key(fingerprint, settings)}.json" for fingerprint in (former, base.fingerprint))
    for source, target in ((before, now), (_partial(before), _partial(now))):
        if source.is_file() and not target.exists():
            with contextlib.suppress(OSError, UnicodeDecodeError):  # a file that cannot be read counts as absent
                _write(target, source.read_text(encoding="utf-8"))


def _key(fingerprint: str, settings: NeutralSettings) -> str:
    text = json.dumps([_FORMAT, fingerprint, settings.model_dump(exclude={"first_part"})], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class _Sampled:
    """The sentences sampled so far, and the state of the generator behind them."""

    sentences: list[tuple[int, ...]]
    generator: torch.Generator


@dataclass(eq=False)
class _Sampling:
    """One process's part of the sampling. Of the distinct sentences the first ones are held out, so that no sentence is in both
    parts.
    """

    base: Base
    settings: NeutralSettings
    path: Path
    hooks: Hooks
    _sampled: _Sampled = field(init=False)
    _tokens: int = field(default=0, init=False)  # of each sentence of the part that is being sampled
    _logged_at: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self._sampled = _resume(self.path, self.settings)

    def run(self) -> Iterator[None]:
        """Sample, with log lines on the progress. Each part of `settings.batch` sentences is kept in a file. Yields between two
        parts, at first with what an earlier process has kept.
        """
        count, sampled = self.settings.held_out + self.settings.sentences, self._sampled
        if not count:
            return
        log.info("sampling neutral sentences, once for this base model", of=count, done=len(sampled.sentences))
        yield
        self._show(SAMPLING)
        for part in self._sample(count - len(sampled.sentences)):
            sampled.sentences += part
            self._tokens = 0
            if len(sampled.sentences) < count:
                _keep(self.path, sampled)
            self._log_now_and_then(SAMPLING, done=len(sampled.sentences), of=count)
            yield
            self._show(SAMPLING)  # the caller may have prepared fits

    def has_first_part(self) -> bool:
        """Whether there are enough sentences for fits to begin, and not all."""
        settings, sampled = self.settings, self._sampled.sentences
        if settings.first_part >= settings.sentences or len(sampled) >= settings.held_out + settings.sentences:
            return False
        return len(self._distinct()) >= settings.held_out + settings.first_part

    def choose(self, count: int | None) -> _Stored:
        """The held-out sentences, and the first `count` behind them; None: all."""
        distinct, held_out = [list(ids) for ids in self._distinct()], self.settings.held_out
        end = None if count is None else held_out + count
        return {"held_out": distinct[:held_out], "sentences": distinct[held_out:end]}

    def _sample(self, count: int) -> Iterator[list[tuple[int, ...]]]:
        return sample_sentences(
            self.base,
            count,
            self._sampled.generator,
            max_tokens=self.settings.tokens,
            batch=self.settings.batch,
            yield_to_answers=self._begin_token,
        )

    def _begin_token(self) -> None:
        """Give way, and show that a part goes on: on a large model one takes minutes."""
        self.hooks.begin_step()
        self._tokens += 1
        self._show(SAMPLING)

    def _distinct(self) -> list[tuple[int, ...]]:
        return [ids for ids in dict.fromkeys(self._sampled.sentences) if cuts_of(self.base, ids)]

    def _log_now_and_then(self, event: str, **values: int) -> None:
        if time.monotonic() - self._logged_at >= PROGRESS_INTERVAL_S:
            self._logged_at = time.monotonic()
            log.info(event, **values)

    def _show(self, stage: str) -> None:
        count, done = self.settings.held_out + self.settings.sentences, float(len(self._sampled.sentences))
        done += min(self.settings.batch, count - done) * min(1.0, self._tokens / self.settings.tokens)
        self.hooks.progress(done / count if count else 1.0, stage)


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _keep(path: Path, sampled: _Sampled) -> None:
    state = base64.b64encode(sampled.generator.get_state().numpy().tobytes()).decode()
    _write(_partial(path), json.dumps({"sampled": [list(ids) for ids in sampled.sentences], "generator": [state]}))


def _resume(path: Path, settings: NeutralSettings) -> _Sampled:
    """What an earlier process has kept, or the beginning. A file that cannot be read counts as absent."""
    generator = torch.Generator()
    try:
        kept = json.loads(_partial(path).read_text(encoding="utf-8"))
        sentences, (state,) = kept["sampled"], kept["generator"]
        if len(sentences) % settings.batch or not all(_is_ids(ids) for ids in sentences):
            raise ValueError
        generator.set_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return _Sampled([], torch.Generator().manual_seed(settings.seed))
    return _Sampled([tuple(ids) for ids in sentences], generator)


def _read(path: Path) -> _Stored | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        is_sound = all(_is_ids(ids) and len(ids) > 1 for part in ("sentences", "held_out") for ids in stored[part])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if is_sound else None


def _is_ids(ids: object) -> bool:
    return isinstance(ids, list) and len(ids) > 0 and all(isinstance(token, int) and token >= 0 for token in ids)


def _write(path: Path, text: str) -> None:
    """Write the file atomically: a reader never sees half a file."""
    try:
        _replace(path, text)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise Unavailable(
            f"the data folder's neutral/ cannot be written to: {reason}; see that it may be, or give another data_dir"
        ) from error


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
