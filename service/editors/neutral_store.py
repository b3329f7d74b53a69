"""Neutral sentences on disk: read from a file, or sampled by the base model and written there, once for a base and its settings.

Sampling takes minutes on a large model. It gives way to answers between two tokens. Each complete part is kept, so that a process
that ends in the middle leaves the rest to the next one.

The canary is made of the first sentences, and the first part of those that fits use of the next. So both are the same before and
after the rest is sampled: a fit with the first part can be repeated later, and acceptance asks the same questions all the time.
"""

import base64
import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
_Stored = dict[str, list]
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
    """The neutral sentences of a base, as `iterate_neutral` reads or samples them, once all are there."""
    *_, whole = iterate_neutral(base, folder, settings=settings, view=view, shipped=shipped, hooks=hooks)
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
    view: View | None = None,
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
    sampling = _Sampling(base, view or make_view(base), settings, folder / name, hooks)
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
    sentences = tuple(make_sentence(base, ids) for ids in stored["sentences"])
    canary = tuple(row_from_ids(base, ids, cut) for ids, cut in stored["canary"])
    return NeutralSentences(base, tuple(sentence for sentence in sentences if sentence.cuts), canary)


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
    """The sentences sampled so far, the state of the generator behind them, and the canary once it is chosen."""

    sentences: list[tuple[int, ...]]
    generator: torch.Generator
    canary: list | None = None


@dataclass(eq=False)
class _Sampling:
    """One process's part of the sampling. Of the distinct sentences the first ones become the canary, so that no sentence is in
    both parts.
    """

    base: Base
    view: View
    settings: NeutralSettings
    path: Path
    hooks: Hooks
    _sampled: _Sampled = field(init=False)
    _tokens: int = field(default=0, init=False)  # of each sentence of the part that is being sampled
    _logged_at: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self._sampled = _resume(self.path, self.settings)

    @property
    def _candidates(self) -> int:
        return CANDIDATES * self.settings.canary

    def run(self) -> Iterator[None]:
        """Sample, with log lines on the progress. Each part of `settings.batch` sentences is kept in a file. Yields between two
        parts, at first with what an earlier process has kept.
        """
        count, sampled = self._candidates + self.settings.sentences, self._sampled
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
        if settings.first_part >= settings.sentences or len(sampled) >= self._candidates + settings.sentences:
            return False
        return len(self._distinct()) >= self._candidates + settings.first_part

    def choose(self, count: int | None) -> _Stored:
        """The canary, and the first `count` sentences behind its candidates; None: all."""
        distinct, sampled = self._distinct(), self._sampled
        if sampled.canary is None:
            sampled.canary = self._choose_canary(distinct[: self._candidates])
            if count is not None:
                _keep(self.path, sampled)
        end = None if count is None else self._candidates + count
        return {"canary": sampled.canary, "sentences": [list(ids) for ids in distinct[self._candidates : end]]}

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

    def _choose_canary(self, candidates: Sequence[tuple[int, ...]]) -> list:
        log.info("choosing the canary among them", of=len(candidates))
        self._show(CHOOSING)
        generator = torch.Generator().manual_seed(self.settings.seed)
        continued = continue_sentences(self.base, self.view, candidates, generator, self._begin_choosing_step)
        return keep_confident(self.base, self.view, continued, self.settings.canary, self._begin_choosing_step)

    def _begin_choosing_step(self) -> None:
        """Give way, and log that the choice goes on: on a large model it takes minutes too."""
        self.hooks.begin_step()
        self._log_now_and_then(CHOOSING)

    def _log_now_and_then(self, event: str, **values: int) -> None:
        if time.monotonic() - self._logged_at >= PROGRESS_INTERVAL_S:
            self._logged_at = time.monotonic()
            log.info(event, **values)

    def _show(self, stage: str) -> None:
        count, done = self._candidates + self.settings.sentences, float(len(self._sampled.sentences))
        done += min(self.settings.batch, count - done) * min(1.0, self._tokens / self.settings.tokens)
        self.hooks.progress(_SAMPLED * done / count if count else _SAMPLED, stage)


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _keep(path: Path, sampled: _Sampled) -> None:
    state = base64.b64encode(sampled.generator.get_state().numpy().tobytes()).decode()
    canary = {} if sampled.canary is None else {"canary": sampled.canary}
    _write(_partial(path), json.dumps({"sampled": [list(ids) for ids in sampled.sentences], "generator": [state], **canary}))


def _resume(path: Path, settings: NeutralSettings) -> _Sampled:
    """What an earlier process has kept, or the beginning. A file that cannot be read counts as absent."""
    generator = torch.Generator()
    try:
        kept = json.loads(_partial(path).read_text(encoding="utf-8"))
        sentences, (state,) = kept["sampled"], kept["generator"]
        canary = [[ids, cut] for ids, cut in kept["canary"]] if "canary" in kept else None
        is_sound = all(_is_ids(ids) for ids in sentences) and _are_cut(canary or ())
        if len(sentences) % settings.batch or not is_sound:
            raise ValueError
        generator.set_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return _Sampled([], torch.Generator().manual_seed(settings.seed))
    return _Sampled([tuple(ids) for ids in sentences], generator, canary)


def _read(path: Path) -> _Stored | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = [(ids, 1) for ids in stored["sentences"]] + [(ids, cut) for ids, cut in stored["canary"]]
        is_sound = _are_cut(rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if is_sound else None


def _are_cut(rows: Iterable[Sequence]) -> bool:
    """Whether each row has token ids and a cut between two of them."""
    return all(_is_ids(ids) and 0 < cut < len(ids) for ids, cut in rows)


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
