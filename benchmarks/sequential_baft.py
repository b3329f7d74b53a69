"""BaFT in this process without a server: one edit after another on one overlay."""

from dataclasses import replace
from random import Random

from service.atlas.neutral import pool_rows
from service.bench.bench_model import BenchModel, to_item
from service.domain.edit import Probe
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.protocol import FitItem
from service.evaluation.records import Record
from service.lm.overlay import EMPTY, Overlay


class SequentialBaft:
    """An overlay that BaFT fits edit by edit. With `window` every fit replays all edits before it."""

    def __init__(self, bench_model: BenchModel, settings: BaftSettings, *, window: bool) -> None:
        self._bench_model, self._settings, self._window = bench_model, settings, window
        self._items: list[FitItem] = []
        self._irrelevant = [Probe(prompt=row.prompt, answer=row.answer, train=True) for row in pool_rows()]
        self.overlay: Overlay = EMPTY

    def apply(self, record: Record, seq: int) -> None:
        """Fit one more edit."""
        item = to_item(record, seq)
        if self._settings.margin:
            item = self._with_irrelevant(item)
        result = fit_baft(
            self._bench_model.base,
            self._bench_model.view_of,
            self.overlay,
            [item],
            self._items if self._window else (),
            settings=self._settings,
            neutral=self._bench_model.neutral,
            seed=seq,
        )
        self.overlay = result.overlay
        self._items.append(item)

    def _with_irrelevant(self, item: FitItem) -> FitItem:
        """The margin term needs one irrelevant sample an edit: here a true fact of the pool half about another subject."""
        edit, rng = item.edit, Random(item.edit.seq)
        candidates = (
            probe for probe in iter(lambda: rng.choice(self._irrelevant), None) if (edit.subject or "") not in probe.prompt
        )
        return replace(item, edit=replace(edit, locality=(next(candidates),)))
