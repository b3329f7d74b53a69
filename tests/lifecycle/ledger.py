"""A second implementation of the editors that trains nothing: an overlay is a table of keys and answers, stored as tensors.

It follows the protocol, is deterministic, and its overlays can be asked. Like the real editors it starts from its parent and
forgets nothing by itself: a ghost that no fit removed still answers. An overlay also stores what it was trained on, whether the
fit took it or not.
"""

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from service.domain.edit import Edit
from service.editors.protocol import FitFailed, FitItem, FitResult, Hooks, StartElsewhere
from service.lifecycle.editors import Editors, MonitorProbes
from service.lm.intervention import Adapter, Intervention
from service.lm.overlay import Overlay
from service.lm.scope import Scope

Answers = dict[str, str]  # conflict key → answer
TrainedEdits = frozenset[tuple[str, str]]  # conflict keys and targets of edits, without tombstones


def base_answer(edit: Edit) -> str:
    """The base model's answer to an edit's prompt."""
    return f"base of {edit.key}"


@dataclass(frozen=True)
class IncrementalFits:
    """A function as an incremental editor."""

    function: Callable[..., FitResult]
    firmest: int = 0
    scope: Callable[[Sequence[FitItem]], Scope | None] = lambda items: None

    def fit(
        self,
        parent: Overlay,
        new: Sequence[FitItem],
        window: Sequence[FitItem],
        *,
        seed: int,
        hooks: Hooks,
        firmness: int = 0,
    ) -> FitResult:
        return self.function(parent, new, window, seed, hooks, firmness)

    def scope_of(self, items: Sequence[FitItem]) -> Scope | None:
        return self.scope(items)

    def prepare(self, overlay: Overlay, *, hooks: Hooks, ahead: bool) -> None:
        pass


@dataclass(frozen=True)
class ConsolidatingFits:
    """A function as a consolidating editor. `on_fit` is called before each fit."""

    function: Callable[..., FitResult]
    on_fit: Callable[[], None] = lambda: None

    def fit(self, items: Sequence[FitItem], start: Overlay, *, seed: int, hooks: Hooks) -> FitResult:
        self.on_fit()
        return self.function(items, start, seed, hooks)


@dataclass(slots=True)  # a misspelt attribute in a test raises
class Ledger:
    """Editors for tests. A test may set the targets at which a fit behaves badly.

    `during_fit` is called in the middle of every fit with the method's name, `after_fit` at its end.
    """

    not_taken: dict[str, set[str]] = field(
        default_factory=lambda: {"baft": set(), "locft": set()}
    )  # by method: targets that are not learned
    failing_targets: set[str] = field(default_factory=set)  # a fit of such a target fails
    displacing_targets: set[str] = field(default_factory=set)  # a fit of such a target loses every item of the window
    forgotten_targets: set[str] = field(default_factory=set)  # such a target is lost whenever it is replayed
    far: Callable[[int], float] = lambda size: 1.0  # the share of far answers kept with a window of that size
    harms: dict[str, float] = field(default_factory=dict)  # by target: what the far answers lose where it is answered
    firmest: int = 0
    held: float = 1.0  # what is left of the harm of a fit with each step of firmness
    firmness: int = 0  # of the fit that runs
    scope: Callable[[Sequence[FitItem]], Scope | None] = lambda items: None  # of an overlay that carries these items
    during_fit: Callable[[str], None] = lambda method: None
    after_fit: Callable[[str], None] = lambda method: None
    fits: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    retrain_methods: list[str] = field(default_factory=list)  # the method of each retrain
    starts: list[Answers] = field(default_factory=list)  # the tensors' answers at the start of each retrain
    location_moved: bool = False  # tensors must be trained in another location: a retrain with a start raises StartElsewhere
    monitor_probes: MonitorProbes | None = None
    kept: dict[tuple[frozenset[tuple[str, str]], ...], float] = field(default_factory=dict)  # of far answers, by contents
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def editors(self) -> Editors:
        return Editors(
            incremental=IncrementalFits(self.baft, self.firmest, self.scope),
            consolidating={
                name: ConsolidatingFits(self.locft, partial(self.retrain_methods.append, name)) for name in ("locft", "lora")
            },
            base_answer=base_answer,
            score=self.score,
            distance=distance,
            monitor_probes=self.monitor_probes,
            locality=LedgerLocality(self),
        )

    def baft(
        self,
        parent: Overlay,
        new: Sequence[FitItem],
        window: Sequence[FitItem],
        seed: int,
        hooks: Hooks,
        firmness: int = 0,
    ) -> FitResult:
        self._fit("baft", new, seed, hooks)
        self.firmness = firmness
        answers = window_of(parent)
        replayed = {item.edit.key for item in window if not item.is_consolidated}
        assert replayed <= {*answers, *tensors_of(parent)}, "a window that the parent does not hold"
        answers |= {item.edit.key: item.target for item in new if item.target not in self.not_taken["baft"]}
        overlay = Overlay(parent.tensors, _adapter(answers, _window_edits(parent) | _edits_of(new)))
        return self._fitted("baft", overlay, new, window)

    def locft(self, items: Sequence[FitItem], start: Overlay, seed: int, hooks: Hooks) -> FitResult:
        """Fit tensors. Like a real minor retrain, a fit with a start forgets nothing of the start by itself."""
        if start.tensors and self.location_moved:
            raise StartElsewhere("the tensors lie elsewhere")
        assert start.adapter is None and (start.tensors or not any(item.is_consolidated for item in items))
        self.starts.append(tensors_of(start))
        self._fit("locft", items, seed, hooks)
        answers = tensors_of(start)
        answers |= {item.edit.key: item.target for item in items if item.target not in self.not_taken["locft"]}
        trained = _tensors_edits(start) | _edits_of(items)
        return self._fitted(
            "locft", Overlay({"ledger": _pack_answers(answers), "lessons": _pack_edits(trained)}, None), items, ()
        )

    def score(self, overlay: Overlay, edit: Edit, between: Callable[[], None]) -> Mapping[str, Any]:
        return {"scores": {"reliability": float(answer(overlay, edit) == edit.target)}}

    def keep(self, overlay: Overlay) -> float:
        answers = {**tensors_of(overlay), **window_of(overlay)}
        harm = sum(self.harms.get(target, 0.0) for target in answers.values())
        return self.far(len(window_of(overlay))) - harm * self.held**self.firmness

    def _fit(self, method: str, items: Sequence[FitItem], seed: int, hooks: Hooks) -> None:
        with self._lock:
            self.fits.append((method, tuple(item.target for item in items), seed))
        for step in range(4):
            hooks.begin_step()
            hooks.progress(step / 4, method)
        self.during_fit(method)
        hooks.begin_step()
        if any(item.target in self.failing_targets for item in items):
            raise FitFailed("the loss is not finite")

    def _fitted(self, method: str, overlay: Overlay, new: Sequence[FitItem], window: Sequence[FitItem]) -> FitResult:
        lost = [item.edit.id for item in (*new, *window) if answer(overlay, item.edit) != item.target]
        lost += [item.edit.id for item in window if item.target in self.forgotten_targets]
        if any(item.target in self.displacing_targets for item in new):
            lost += [item.edit.id for item in window]
        reports = {item.edit.id: {"method": method, "taken": item.edit.id not in lost} for item in new}
        item_count = len(new) + len(window)
        self.after_fit(method)
        self.kept[_contents_of(overlay)] = self.keep(overlay)
        self.firmness = 0
        return FitResult(overlay, reports, tuple(lost), {"retention": 1.0 - len(set(lost)) / max(1, item_count)})


@dataclass(frozen=True)
class LedgerLocality:
    """A hundred far answers, of which a version keeps what the ledger says."""

    ledger: Ledger
    subjects: Collection[str] = ()

    def measure(
        self, overlay: Overlay, parent: Overlay, edits: Sequence[Edit], edited: Collection[str], hooks: Hooks
    ) -> dict[str, Any]:
        kept = self._kept(overlay)
        lost = max(0.0, self._kept(parent) - kept)
        return {"far": {"kept": kept, "n": 100, "interval": [0.0, 1.0], "floor": 1.0, "newly_lost": lost}}

    def _kept(self, overlay: Overlay) -> float:
        """What an overlay keeps is decided when it is fitted; for one that another ledger fitted, when it is asked."""
        if overlay.adapter is None and not overlay.tensors:
            return 1.0
        kept = self.ledger.kept.get(_contents_of(overlay))
        return self.ledger.keep(overlay) if kept is None else kept


def _contents_of(overlay: Overlay) -> tuple[frozenset[tuple[str, str]], ...]:
    return frozenset(tensors_of(overlay).items()), frozenset(window_of(overlay).items())


def distance(first: Overlay, second: Overlay) -> float:
    """The number of answers in which the tensors of two overlays differ."""
    return float(len(tensors_of(first).items() ^ tensors_of(second).items()))


def answer(overlay: Overlay, edit: Edit) -> str:
    """An overlay's answer to an edit's prompt."""
    return {**tensors_of(overlay), **window_of(overlay)}.get(edit.key, base_answer(edit))


def window_of(overlay: Overlay) -> Answers:
    """The answers of the adapter."""
    return {} if overlay.adapter is None else _unpack_answers(overlay.adapter.interventions[0].bias)


def tensors_of(overlay: Overlay) -> Answers:
    """The answers of the replaced tensors."""
    return _unpack_answers(overlay.tensors["ledger"]) if "ledger" in overlay.tensors else {}


def trained_edits_of(overlay: Overlay) -> TrainedEdits:
    """The edits that an overlay was trained on since its tensors and its window were fitted from nothing."""
    return _tensors_edits(overlay) | _window_edits(overlay)


def _edits_of(items: Sequence[FitItem]) -> TrainedEdits:
    return frozenset((item.edit.key, item.edit.target) for item in items if not item.is_tombstone)


def _window_edits(overlay: Overlay) -> TrainedEdits:
    return frozenset() if overlay.adapter is None else _unpack_edits(overlay.adapter.interventions[1].bias)


def _tensors_edits(overlay: Overlay) -> TrainedEdits:
    return _unpack_edits(overlay.tensors["lessons"]) if "lessons" in overlay.tensors else frozenset()


def _adapter(answers: Answers, trained: TrainedEdits) -> Adapter:
    texts = (_pack_answers(answers), _pack_edits(trained))
    interventions = {n: Intervention(torch.zeros(len(text), 1), torch.zeros(len(text), 1), text) for n, text in enumerate(texts)}
    return Adapter(interventions, {})


def _pack_edits(trained: TrainedEdits) -> torch.Tensor:
    return torch.tensor(list(json.dumps(sorted(trained)).encode()), dtype=torch.float32)


def _unpack_edits(packed: torch.Tensor) -> TrainedEdits:
    return frozenset((key, target) for key, target in json.loads(bytes(packed.to(torch.uint8).tolist())))


def _pack_answers(answers: Answers) -> torch.Tensor:
    return torch.tensor(list(json.dumps(list(answers.items())).encode()), dtype=torch.float32)


def _unpack_answers(packed: torch.Tensor) -> Answers:
    return dict(json.loads(bytes(packed.to(torch.uint8).tolist())))
