"""A second implementation of the editors that trains nothing: an overlay is the list of what it was asked to say, as tensors.

It keeps to the protocol, is deterministic, and can be asked. Like the real ones it starts from its parent and never forgets by
itself: a ghost that nobody took out still answers. An overlay also knows what it was trained on, taken or not.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from service.domain.edit import Edit
from service.editors.protocol import FitFailed, FitItem, FitResult, Hooks, StartElsewhere
from service.lifecycle.editors import Editors, MonitorProbes
from service.lm.intervention import Adapter, Intervention
from service.lm.overlay import Overlay

Lines = dict[str, str]  # conflict key → what is said
Lessons = frozenset[tuple[str, str]]  # conflict keys and targets of edits, tombstones apart


def base_answer(edit: Edit) -> str:
    """What the base model says to an edit's prompt."""
    return f"base of {edit.key}"


@dataclass
class Ledger:
    """Editors for tests. `not_taken` by method, `breaks` (targets at which a fit fails) and `costs` (a target at which every
    other item is lost) are what a test may set, `forgets` (targets that are lost whenever they are to be kept) and `harms` (by
    target, what the canary loses where it is said) too; `during` is
    called in the middle of every fit with the method's name, `ended` at the end.
    """

    not_taken: dict[str, set[str]] = field(default_factory=lambda: {"baft": set(), "locft": set()})
    breaks: set[str] = field(default_factory=set)
    costs: set[str] = field(default_factory=set)
    forgets: set[str] = field(default_factory=set)
    canary: Callable[[int], float] = lambda size: 1.0
    harms: dict[str, float] = field(default_factory=dict)
    during: Callable[[str], None] = lambda method: None
    ended: Callable[[str], None] = lambda method: None
    fits: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    starts: list[Lines] = field(default_factory=list)  # of each retrain
    moved_away: bool = False  # the tensors are to be trained elsewhere from now on
    monitor_probes: MonitorProbes | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def editors(self) -> Editors:
        return Editors(
            baft=self.baft,
            locft=self.locft,
            base_answer=base_answer,
            score=self.score,
            distance=distance,
            monitor_probes=self.monitor_probes,
            canary_size=100,
        )

    def baft(self, parent: Overlay, new: Sequence[FitItem], window: Sequence[FitItem], seed: int, hooks: Hooks) -> FitResult:
        self._fit("baft", new, seed, hooks)
        said = window_of(parent)
        kept = {item.edit.key for item in window if not item.is_consolidated}
        assert kept <= {*said, *tensors_of(parent)}, "a window that the parent does not hold"
        said |= {item.edit.key: item.target for item in new if item.target not in self.not_taken["baft"]}
        overlay = Overlay(parent.tensors, _adapter(said, _learned_by_window(parent) | _lessons(new)))
        return self._fitted("baft", overlay, new, window)

    def locft(self, items: Sequence[FitItem], start: Overlay, seed: int, hooks: Hooks) -> FitResult:
        """Like a real minor retrain, one with a start never forgets by itself what that said."""
        if start.tensors and self.moved_away:
            raise StartElsewhere("the tensors lie elsewhere")
        assert start.adapter is None and (start.tensors or not any(item.is_consolidated for item in items))
        self.starts.append(tensors_of(start))
        self._fit("locft", items, seed, hooks)
        said = tensors_of(start)
        said |= {item.edit.key: item.target for item in items if item.target not in self.not_taken["locft"]}
        lessons = _learned_by_tensors(start) | _lessons(items)
        return self._fitted("locft", Overlay({"ledger": _packed(said), "lessons": _packed_lessons(lessons)}, None), items, ())

    def score(self, overlay: Overlay, edit: Edit, between: Callable[[], None]) -> Mapping[str, Any]:
        return {"scores": {"reliability": float(answer(overlay, edit) == edit.target)}}

    def _fit(self, method: str, items: Sequence[FitItem], seed: int, hooks: Hooks) -> None:
        with self._lock:
            self.fits.append((method, tuple(item.target for item in items), seed))
        for step in range(4):
            hooks.begin_step()
            hooks.progress(step / 4, method)
        self.during(method)
        hooks.begin_step()
        if any(item.target in self.breaks for item in items):
            raise FitFailed("the loss is not finite")

    def _fitted(self, method: str, overlay: Overlay, new: Sequence[FitItem], window: Sequence[FitItem]) -> FitResult:
        lost = [item.edit.id for item in (*new, *window) if answer(overlay, item.edit) != item.target]
        lost += [item.edit.id for item in window if item.target in self.forgets]
        if any(item.target in self.costs for item in new):
            lost += [item.edit.id for item in window]
        reports = {item.edit.id: {"method": method, "taken": item.edit.id not in lost} for item in new}
        asked = len(new) + len(window)
        self.ended(method)
        said = {**tensors_of(overlay), **window_of(overlay)}
        harm = sum(self.harms.get(target, 0.0) for target in said.values())
        scores = {"canary": self.canary(len(window_of(overlay))) - harm, "retention": 1.0 - len(set(lost)) / max(1, asked)}
        return FitResult(overlay, reports, tuple(lost), scores)


def distance(one: Overlay, other: Overlay) -> float:
    """How many lines of two overlays' tensors differ."""
    return float(len(tensors_of(one).items() ^ tensors_of(other).items()))


def answer(overlay: Overlay, edit: Edit) -> str:
    """What an overlay says to an edit's prompt."""
    return {**tensors_of(overlay), **window_of(overlay)}.get(edit.key, base_answer(edit))


def window_of(overlay: Overlay) -> Lines:
    """What the adapter was taught."""
    return {} if overlay.adapter is None else _unpacked(overlay.adapter.interventions[0].bias)


def tensors_of(overlay: Overlay) -> Lines:
    """What the replaced tensors were taught."""
    return _unpacked(overlay.tensors["ledger"]) if "ledger" in overlay.tensors else {}


def lessons_of(overlay: Overlay) -> Lessons:
    """What an overlay was trained on since its tensors and its window were fitted from nothing."""
    return _learned_by_tensors(overlay) | _learned_by_window(overlay)


def _lessons(items: Sequence[FitItem]) -> Lessons:
    return frozenset((item.edit.key, item.edit.target) for item in items if not item.is_tombstone)


def _learned_by_window(overlay: Overlay) -> Lessons:
    return frozenset() if overlay.adapter is None else _unpacked_lessons(overlay.adapter.interventions[1].bias)


def _learned_by_tensors(overlay: Overlay) -> Lessons:
    return _unpacked_lessons(overlay.tensors["lessons"]) if "lessons" in overlay.tensors else frozenset()


def _adapter(said: Lines, lessons: Lessons) -> Adapter:
    texts = (_packed(said), _packed_lessons(lessons))
    pages = {n: Intervention(torch.zeros(len(text), 1), torch.zeros(len(text), 1), text) for n, text in enumerate(texts)}
    return Adapter(pages, {})


def _packed_lessons(lessons: Lessons) -> torch.Tensor:
    return torch.tensor(list(json.dumps(sorted(lessons)).encode()), dtype=torch.float32)


def _unpacked_lessons(packed: torch.Tensor) -> Lessons:
    return frozenset((key, target) for key, target in json.loads(bytes(packed.to(torch.uint8).tolist())))


def _packed(said: Lines) -> torch.Tensor:
    return torch.tensor(list(json.dumps(list(said.items())).encode()), dtype=torch.float32)


def _unpacked(packed: torch.Tensor) -> Lines:
    return dict(json.loads(bytes(packed.to(torch.uint8).tolist())))
