"""The editors and the judge bound to one base model: plain callables, so that the lifecycle knows no tensors and no settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.domain.edit import Edit
from service.editors.baft.fit import fit_baft
from service.editors.baft.ready import make_ready
from service.editors.locft.fit import fit_locft
from service.editors.neutral import Neutral
from service.editors.protocol import Fitted, Hooks, Item
from service.evaluation.metrics import Outcome, Reference, measure
from service.evaluation.record import Record, asks_of, record_of
from service.evaluation.report import edit_report
from service.lifecycle.editors import Editors
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.lm.prompts import encode_prompt
from service.lm.score import greedy
from service.lm.text import decode
from service.settings import Settings

LONGEST_BASE_ANSWER = 32  # tokens of the base model's own answer that a tombstone is fitted to say


class Judge:
    """Asks questions of overlays; what the base model says to them is computed once and kept."""

    def __init__(self, base: Base, view_of: Callable[[Overlay], View]) -> None:
        self._base = base
        self._view_of = view_of
        self._reference = Reference(view_of(EMPTY))

    def ask(self, overlay: Overlay, records: Sequence[Record]) -> list[Outcome]:
        """Every question of every record, answered by an overlay."""
        asks = [ask for record in records for ask in asks_of(record, self._base.surfaces)]
        return measure(self._view_of(overlay), overlay.adapter, self._reference, asks)

    def score(self, overlay: Overlay, edit: Edit) -> Mapping[str, Any]:
        """What an edit's report gains: the scores of its probes."""
        return edit_report(self.ask(overlay, [record_of(edit, id=edit.id)]))


def bind(base: Base, view_of: Callable[[Overlay], View], neutral: Neutral, judge: Judge, settings: Settings) -> Editors:
    """The two methods for one base, under one set of settings.

    After a retrain, what fits on the new tensors need is prepared at once, and not by the first edit that comes.
    """

    def baft(parent: Overlay, new: Sequence[Item], window: Sequence[Item], seed: int, hooks: Hooks) -> Fitted:
        return fit_baft(base, view_of, parent, new, window, settings=settings.baft, neutral=neutral, seed=seed, hooks=hooks)

    def locft(items: Sequence[Item], seed: int, hooks: Hooks) -> Fitted:
        fitted = fit_locft(base, items, settings=settings.locft, neutral=neutral, seed=seed, hooks=hooks)
        make_ready(base, view_of, fitted.overlay, settings=settings.baft, neutral=neutral)
        return fitted

    def base_answer(edit: Edit) -> str:
        surface = next((name for name in edit.surfaces if name in base.surfaces), base.surfaces[0])
        prompt = encode_prompt(base, edit.prompt, surface=surface)
        room = min(LONGEST_BASE_ANSWER, base.context - len(prompt))
        (answer,) = greedy(view_of(EMPTY), None, [prompt], max_new_tokens=max(1, room))
        return decode(base, answer)

    return Editors(baft=baft, locft=locft, base_answer=base_answer, score=judge.score)
