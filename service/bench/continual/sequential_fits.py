"""BaFT in this process without a server: one batch of edits after another on one overlay, and nothing is refused or deferred."""

import time
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from service.bench.bench_model import BenchModel, to_item
from service.domain.edit import Probe
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.examples import make_mention_test
from service.editors.protocol import FitFailed, FitItem
from service.evaluation.records import Record
from service.lm.overlay import EMPTY, Overlay

_SEEDS_APART = 1_000_003  # so that no two streams share the seed of a fit


class SequentialFits:
    """An overlay that BaFT fits batch by batch. Where the settings replay, every fit replays all edits before it.

    The margin term needs one unrelated sample an edit: here a sentence that the base model wrote and that names no subject of the
    edit. A fit that fails leaves the overlay as it was, and is counted.
    """

    def __init__(self, bench_model: BenchModel, settings: BaftSettings, *, seed: int = 0) -> None:
        self._bench_model, self.settings, self._seed = bench_model, settings, seed
        self._neutral = bench_model.neutral
        self._items: list[FitItem] = []
        self.overlay: Overlay = EMPTY
        self.seconds: list[float] = []  # of each fit
        self.failed = 0
        self._fits_at_mark = 0

    @property
    def fits(self) -> int:
        """The number of fits so far, failed ones included."""
        return len(self.seconds)

    def seconds_since_mark(self) -> list[float]:
        """The seconds of each fit since the last call."""
        seconds, self._fits_at_mark = self.seconds[self._fits_at_mark :], self.fits
        return seconds

    def apply(self, records: Sequence[Record]) -> None:
        """Fit one more batch."""
        items = [self._build_item(record, len(self._items) + number) for number, record in enumerate(records, 1)]
        started_at = time.perf_counter()
        try:
            self.overlay = fit_baft(
                self._bench_model.base,
                self._bench_model.view_of,
                self.overlay,
                items,
                self._items if self.settings.replay else (),
                settings=self.settings,
                neutral=self._neutral,
                names=self._bench_model.editor_context.names,
                seed=_SEEDS_APART * self._seed + self.fits + 1,
            ).overlay
        except FitFailed:
            self.failed += 1
        self.seconds.append(time.perf_counter() - started_at)
        self._items += items

    def _build_item(self, record: Record, seq: int) -> FitItem:
        item = to_item(record, seq)
        return self._with_unrelated(item) if self.settings.margin else item

    def _with_unrelated(self, item: FitItem) -> FitItem:
        rng, mentions_edit = Random(item.edit.seq), make_mention_test([item])
        sentences = self._neutral.sentences
        texts = (sentence.text.strip() for sentence in rng.sample(sentences, len(sentences)))
        text = next((text for text in texts if text and not mentions_edit(text)), None)
        probes = () if text is None else (Probe(prompt=text, train=True),)
        return replace(item, edit=replace(item.edit, locality=probes))
