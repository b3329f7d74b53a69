"""Neutral sentences: what the base model writes of itself when nobody asks anything.

A fit is held to the unedited model on them, cut at a random word, so that an edit changes what it must and little else. They need
nobody's data and fit any model. Some of them, the canary, are kept from every fit: how far they are still continued as before
tells how much an overlay has moved what no edit speaks of. Sampled once per base and kept on disk by its fingerprint.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
import torch

from service.domain.errors import Unavailable
from service.editors.cache import KeyedCache
from service.editors.neutral_settings import NeutralSettings
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.overlay import make_view as plain_view
from service.lm.prompts import Row, row_from_ids
from service.lm.scoring import decode_greedily, row_losses, sample_sentences

SAY_S = 5.0
_FORMAT = 2
_WORD_STARTS = ("Ġ", "▁", " ")  # how byte-level and sentencepiece vocabularies mark a token that begins a word
_CONTINUATION_TOKENS = 6
_CANDIDATES = 3  # sentences drawn for each row of the canary
_SURE = 0.35  # nats a token: the base model gives each token of a continuation 0.7 or so
_PREFIX_TOKENS = 10
_CHUNK = 16

Made = TypeVar("Made")
log = structlog.get_logger("errata.neutral")


@dataclass(frozen=True)
class Sentence:
    """Token ids from BOS on, the text they decode to, and the places (index of the first continued token) it may be cut at."""

    ids: tuple[int, ...]
    text: str
    cuts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class NeutralSentences:
    """`sentences` may be learned from; the rows of `canary` end in the base model's own greedy continuation and never are.

    With them goes the shelf of all fits on this base, which holds forward passes that many of them need.
    """

    base: Base
    sentences: tuple[Sentence, ...]
    canary: tuple[Row, ...]
    _shelf: KeyedCache = field(default_factory=KeyedCache)

    def ready(self, name: tuple, make: Callable[[], Made], *, keep: int, ahead: bool = False) -> Made:
        """What `make` gives, or gave for the same name before, as the shelf keeps it."""
        return self._shelf.ready(name, make, keep=keep, ahead=ahead)

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        *,
        speaks_against: Callable[[str], bool] | None = None,
        last_words: int = 0,
    ) -> list[Row]:
        """Up to `count` sentences, less those whose text `speaks_against` an edit, each cut at a random word.

        With `last_words` the word is one of so many at the end: there a prompt and what it asks for have usually been said.
        """
        order = torch.randperm(len(self.sentences), generator=generator).tolist()
        rows: list[Row] = []
        for index in order:
            if len(rows) == count:
                break
            sentence = self.sentences[index]
            if speaks_against is None or not speaks_against(sentence.text):
                cuts = sentence.cuts[-last_words:]
                cut = cuts[int(torch.randint(len(cuts), (), generator=generator))]
                rows.append(row_from_ids(self.base, sentence.ids, cut))
        return rows

    def prefixes(self, count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """Beginnings of sentences, without BOS and EOS: something unrelated to stand before a prompt."""
        special = {*self.base.eos_ids, self.base.bos_id}
        rows = self.draw(count, generator)
        return [tuple(token for token in row.ids if token not in special)[:_PREFIX_TOKENS] for row in rows]


def load_or_sample_neutral(base: Base, folder: Path, *, settings: NeutralSettings, view: View | None = None) -> NeutralSentences:
    """The neutral sentences of a base, from `folder` if they are there, else sampled and kept there.

    A file that cannot be read counts as absent: the same sentences are sampled again.
    """
    path = folder / f"{_key(base, settings)}.json"
    stored = _read(path)
    if stored is None:
        stored = _sample(base, view or plain_view(base), settings)
        _write(path, stored)
    sentences = tuple(_sentence(base, ids) for ids in stored["sentences"])
    canary = tuple(row_from_ids(base, ids, cut) for ids, cut in stored["canary"])
    return NeutralSentences(base, tuple(sentence for sentence in sentences if sentence.cuts), canary)


def _key(base: Base, settings: NeutralSettings) -> str:
    text = json.dumps([_FORMAT, base.fingerprint, settings.model_dump()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sample(base: Base, view: View, settings: NeutralSettings) -> dict[str, list]:
    """Distinct sentences; the first ones become the canary, so that none of it is among the others."""
    candidates = _CANDIDATES * settings.canary
    wanted = candidates + settings.sentences
    drawn = _drawn(base, wanted, settings) if wanted else []
    distinct = [ids for ids in dict.fromkeys(tuple(ids) for ids in drawn) if cuts_of(base, ids)]
    generator = torch.Generator().manual_seed(settings.seed)
    log.info("choosing the canary among them", of=candidates)
    canary = _surest(base, view, _continued(base, view, distinct[:candidates], generator), settings.canary)
    return {"canary": canary, "sentences": [list(ids) for ids in distinct[candidates:]]}


def _drawn(base: Base, wanted: int, settings: NeutralSettings) -> list[tuple[int, ...]]:
    """Sample so many sentences, and say now and then how far that is: it is what a first start waits for."""
    said_at = time.monotonic()

    def told(done: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SAY_S:
            said_at = time.monotonic()
            log.info("sampling neutral sentences", done=done, of=wanted)

    log.info("sampling neutral sentences, once for this base model", of=wanted)
    return sample_sentences(base, wanted, max_tokens=settings.tokens, seed=settings.seed, batch=settings.batch, told=told)


def _surest(base: Base, view: View, continued: list, count: int) -> list:
    """The first `count` of what the base model is sure of, and the surest of the rest if that is too few.

    Where two continuations are all but equally likely, any change of the weights flips the greedy one: that would be noise.
    """
    rows = [row_from_ids(base, ids, cut) for ids, cut in continued]
    losses = row_losses(view, rows, None).tolist() if rows else []
    order = sorted(range(len(rows)), key=lambda index: max(losses[index], _SURE))  # stable: the sure ones in their order
    return [continued[index] for index in sorted(order[:count])]


def confident_rows(
    base: Base, view: View, sentences: Sequence[tuple[int, ...]], count: int, between: Callable[[], None] = lambda: None
) -> list[Row]:
    """At most `count` rows made of sentences as the canary's are: cut at a random word, continued as `view` does, and sure.

    The same rows every time; `between` is called between two passes.
    """
    chosen = list(sentences[: _CANDIDATES * count])
    generator = torch.Generator().manual_seed(0)
    continued: list = []
    for start in range(0, len(chosen), _CHUNK):
        continued += _continued(base, view, chosen[start : start + _CHUNK], generator)
        between()
    return [row_from_ids(base, ids, cut) for ids, cut in _surest(base, view, continued, count)]


def _continued(base: Base, view: View, sentences: Sequence[tuple[int, ...]], generator: torch.Generator) -> list:
    """Each sentence cut at a random word and continued by the base model's most likely tokens."""
    starts = []
    for ids in sentences:
        cuts = cuts_of(base, ids)
        starts.append(ids[: cuts[int(torch.randint(len(cuts), (), generator=generator))]])
    answers = decode_greedily(view, None, starts, max_new_tokens=_CONTINUATION_TOKENS) if starts else []
    return [[[*start, *answer], len(start)] for start, answer in zip(starts, answers, strict=True) if answer]


def cuts_of(base: Base, ids: Sequence[int]) -> tuple[int, ...]:
    """Where a sentence may be cut: before a token that begins a word, with at least one token of text on either side.

    A vocabulary that marks no words may be cut anywhere.
    """
    first = 2 if base.bos_id is not None and ids and ids[0] == base.bos_id else 1
    last = len(ids) - 1 if ids and ids[-1] in base.eos_ids else len(ids)
    places = range(first, last)
    pieces = base.tokenizer.convert_ids_to_tokens(list(ids))
    words = tuple(place for place in places if str(pieces[place]).startswith(_WORD_STARTS))
    return words or tuple(places)


def _sentence(base: Base, ids: Sequence[int]) -> Sentence:
    return Sentence(tuple(ids), base.tokenizer.decode(list(ids), skip_special_tokens=True), cuts_of(base, ids))


def _read(path: Path) -> dict[str, list] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = [(ids, 1) for ids in stored["sentences"]] + [(ids, cut) for ids, cut in stored["canary"]]
        sound = all(_is_ids(ids) and 0 < cut < len(ids) for ids, cut in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if sound else None


def _is_ids(ids: object) -> bool:
    return isinstance(ids, list) and len(ids) > 0 and all(isinstance(token, int) and token >= 0 for token in ids)


def _write(path: Path, stored: dict[str, list]) -> None:
    """Whole or not at all: a reader never sees half a file."""
    try:
        _put(path, stored)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Unavailable(
            f"the data folder's neutral/ cannot be written to: {why}; see that it may be, or give another data_dir"
        ) from error


def _put(path: Path, stored: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(stored, file)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
