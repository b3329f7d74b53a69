"""The methods that take part in the stream of edits beside the service, each in process, with nothing but its editor."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Protocol

from benchmarks.atlas import Ground, edit_of
from benchmarks.depth_first import DepthFirst
from service.atlas.neutral import pool_rows
from service.domain.edit import Edit, Probe
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.protocol import Hooks, Item
from service.evaluation.record import Record
from service.lm.overlay import EMPTY, Overlay


class Contender(Protocol):
    """Takes edits one after another; `overlay` is what it answers with after those it took."""

    def take(self, record: Record, seq: int) -> None: ...

    def overlay(self) -> Overlay: ...

    def close(self) -> None: ...


class OneAfterAnother:
    """BaFT or ReFT trained on and on, an edit at a time; `window`: every fit replays all edits before it."""

    def __init__(self, place: Ground, settings: BaftSettings, *, window: bool) -> None:
        self._place, self._settings, self._window = place, settings, window
        self._items: list[Item] = []
        self._overlay = EMPTY
        self._irrelevant = [Probe(prompt=row.prompt, answer=row.answer, train=True) for row in pool_rows()]

    def take(self, record: Record, seq: int) -> None:
        item = _item(self._with_irrelevant(edit_of(record, seq)) if self._settings.margin else edit_of(record, seq))
        fitted = fit_baft(
            self._place.base,
            self._place.view_of,
            self._overlay,
            [item],
            self._items if self._window else (),
            settings=self._settings,
            neutral=self._place.neutral,
            seed=seq,
            hooks=Hooks(),
        )
        self._overlay = fitted.overlay
        self._items.append(item)

    def overlay(self) -> Overlay:
        return self._overlay

    def close(self) -> None:
        """Nothing is held."""

    def _with_irrelevant(self, edit: Edit) -> Edit:
        """The margin term reads one irrelevant sample an edit: here a true fact of the pool half about something else."""
        rng = Random(edit.seq)
        fitting = (
            probe for probe in iter(lambda: rng.choice(self._irrelevant), None) if (edit.subject or "") not in probe.prompt
        )
        return replace(edit, locality=(next(fitting),))


class LocftAlone:
    """LocFT-BF over all edits so far, from the base model, whenever it is asked: what retraining without BaFT gives."""

    def __init__(self, place: Ground, settings: LocftSettings) -> None:
        self._place, self._settings = place, settings
        self._items: list[Item] = []

    def take(self, record: Record, seq: int) -> None:
        self._items.append(_item(edit_of(record, seq)))

    def overlay(self) -> Overlay:
        fitted = fit_locft(
            self._place.base, self._items, settings=self._settings, neutral=self._place.neutral, seed=0, hooks=Hooks()
        )
        return fitted.overlay

    def close(self) -> None:
        """Nothing is held."""


class DepthFirstContender:
    """Depth-first fine-tuning, one edit after another."""

    def __init__(self, place: Ground) -> None:
        self._tuned = DepthFirst.start(place.base, LocftSettings())

    def take(self, record: Record, seq: int) -> None:
        self._tuned.fit(_item(edit_of(record, seq)))

    def overlay(self) -> Overlay:
        return self._tuned.overlay

    def close(self) -> None:
        """Nothing is held."""


BASELINES: dict[str, Callable[[Ground], Contender]] = {
    "reft": lambda place: OneAfterAnother(place, BaftSettings(preset="reft"), window=False),
    "baft_paper": lambda place: OneAfterAnother(place, BaftSettings(preset="paper"), window=False),
    "baft_unbounded": lambda place: OneAfterAnother(place, BaftSettings(), window=True),
    "locft_alone": lambda place: LocftAlone(place, LocftSettings()),
    "depth_first": DepthFirstContender,
}


def _item(edit: Edit) -> Item:
    return Item(edit, edit.target)
