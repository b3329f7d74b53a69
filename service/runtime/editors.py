"""The editors and the judge bound to one base model: plain callables, so that the lifecycle knows no tensors and no settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from service.atlas.skills import held_out_items
from service.domain.edit import Edit
from service.domain.errors import Refused
from service.editors.baft.fit import fit_baft
from service.editors.baft.warm_up import make_ready
from service.editors.locft.fit import fit_locft
from service.editors.locft.location import place_of
from service.editors.neutral import Neutral
from service.editors.protocol import Fitted, Hooks, Item
from service.evaluation.capability.measure import Task, capability, load_tasks
from service.evaluation.metrics.full import measure_full
from service.evaluation.metrics.outcomes import Outcome, Reference, measure
from service.evaluation.records import Record, asks_of, record_of
from service.evaluation.report import edit_report
from service.lifecycle.editors import Editors
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.lm.prompts import encode_prompt
from service.lm.scoring import greedy
from service.lm.tokenizing import decode
from service.runtime.monitor_questions import Watching
from service.settings import Settings

LONGEST_BASE_ANSWER = 32  # tokens of the base model's own answer that a tombstone is fitted to say


class Judge:
    """Asks questions of overlays; what the base model says to them is computed once and kept."""

    def __init__(self, base: Base, view_of: Callable[[Overlay], View], tasks: Sequence[Task] = ()) -> None:
        self._base = base
        self._view_of = view_of
        self._tasks = tasks
        self._reference = Reference(view_of(EMPTY))
        self._base_solves: dict[Task, Mapping[str, float]] = {}

    def ask(self, overlay: Overlay, records: Sequence[Record], *, between: Callable[[], None] = lambda: None) -> list[Outcome]:
        """Every question of every record, answered by an overlay."""
        asks = [ask for record in records for ask in asks_of(record, self._base.surfaces)]
        return measure(self._view_of(overlay), overlay.adapter, self._reference, asks, between=between)

    def score(self, overlay: Overlay, edit: Edit, between: Callable[[], None]) -> Mapping[str, Any]:
        """What an edit's report gains: the scores of its probes."""
        return edit_report(self.ask(overlay, [record_of(edit, id=edit.id)], between=between))

    def full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], between: Callable[[], None]
    ) -> Mapping[str, Any]:
        """Every figure of the field, for a version that holds the edits `live`."""
        view = self._view_of(overlay)
        return measure_full(view, overlay.adapter, self._reference, records, live=live, between=between)

    def capability(self, overlay: Overlay, *, between: Callable[[], None] = lambda: None) -> Mapping[str, Any]:
        """What a version still solves of the tasks that this server has. Raises Refused if it has none."""
        self.check_capability()
        view = self._view_of(overlay)
        return capability(
            view, overlay.adapter, self._reference, self._tasks, between=between, remembered=self._base_solves
        ).to_json()

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks that this server has."""
        return self._tasks

    def solved(self, overlay: Overlay, tasks: Sequence[Task], between: Callable[[], None]) -> float | None:
        """What a version solves of some tasks, as a share of what the base model solves; None where that is nothing."""
        return capability(
            self._view_of(overlay), overlay.adapter, self._reference, tasks, between=between, remembered=self._base_solves
        ).ratio

    def check_capability(self) -> None:
        """Raise Refused if this server has no tasks."""
        if not self._tasks:
            raise Refused("this server has no capability tasks: set capability_file", field="capability")


def capability_tasks(settings: Settings) -> tuple[Task, ...]:
    """The tasks of the file that is set, else those of the embedded model, else none. Raises Refused for a file that is none."""
    if settings.capability_file is not None:
        return load_tasks(settings.capability_file)
    if settings.model != "atlas":
        return ()
    return atlas_tasks()


def atlas_tasks() -> tuple[Task, ...]:
    """The skills of the embedded model that its training did not see."""
    return tuple(Task(item.skill, item.prompt, item.answer) for item in held_out_items())


def bind(
    base: Base,
    view_of: Callable[[Overlay], View],
    neutral: Neutral,
    judge: Judge,
    settings: Settings,
    prompts: Callable[[], Sequence[str]] = tuple,
) -> Editors:
    """The two methods for one base, under one set of settings. Refused if the base has no such place to tune as they name.

    `prompts` are real ones that a retrain shall leave as the base answers them.

    After a retrain, what fits on the new tensors need is prepared at once, and not by the first edit that comes.
    """
    place_of(base.anatomy, settings.locft)

    def baft(parent: Overlay, new: Sequence[Item], window: Sequence[Item], seed: int, hooks: Hooks) -> Fitted:
        return fit_baft(base, view_of, parent, new, window, settings=settings.baft, neutral=neutral, seed=seed, hooks=hooks)

    def locft(items: Sequence[Item], start: Overlay, seed: int, hooks: Hooks) -> Fitted:
        fitted = fit_locft(
            base, items, settings=settings.locft, neutral=neutral, seed=seed, hooks=hooks, start=start, prompts=prompts()
        )
        hooks.progress(1.0, "getting ready for edits")
        make_ready(base, view_of, fitted.overlay, settings=settings.baft, neutral=neutral, hooks=hooks, ahead=True)
        return fitted

    def base_answer(edit: Edit) -> str:
        surface = next((name for name in edit.surfaces if name in base.surfaces), base.surfaces[0])
        prompt = encode_prompt(base, edit.prompt, surface=surface)
        room = min(LONGEST_BASE_ANSWER, base.context - len(prompt))
        (answer,) = greedy(view_of(EMPTY), None, [prompt], max_new_tokens=max(1, room))
        return decode(base, answer)

    def distance(one: Overlay, other: Overlay) -> float:
        return relative_distance(base.model, one, other)

    return Editors(
        baft=baft,
        locft=locft,
        base_answer=base_answer,
        score=judge.score,
        distance=distance,
        watched=Watching(base, view_of, neutral, judge.tasks, judge.solved).watched(),
        canary_size=len(neutral.canary),
    )


@torch.no_grad()
def relative_distance(model: torch.nn.Module, one: Overlay, other: Overlay) -> float:
    """‖one - other‖ / ‖other‖ (Frobenius) over what either replaces; the model's own parameters stand for what one has not."""
    apart = size = 0.0
    for name in sorted({*one.tensors, *other.tensors}):
        own = model.get_parameter(name)
        left, right = (overlay.tensors.get(name, own).detach().cpu().double() for overlay in (one, other))
        apart += float((left - right).square().sum())
        size += float(right.square().sum())
    return (apart / size) ** 0.5 if size else 0.0
