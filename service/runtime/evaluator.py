"""Questions asked of versions: what the base model says to them is computed once and kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.atlas.skills import held_out_items
from service.domain.edit import Edit
from service.domain.errors import Refused
from service.evaluation.capability.measure import Task, load_tasks, measure_capability
from service.evaluation.metrics.full import measure_full
from service.evaluation.metrics.outcomes import Outcome, Reference, measure_outcomes
from service.evaluation.records import Record, build_record, list_questions
from service.evaluation.report import build_edit_report
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.settings import Settings


class Evaluator:
    """Asks questions of overlays; what the base model says to them is computed once and kept."""

    def __init__(self, base: Base, view_of: Callable[[Overlay], View], tasks: Sequence[Task] = ()) -> None:
        self._base = base
        self._view_of = view_of
        self._tasks = tasks
        self._reference = Reference(view_of(EMPTY))
        self._base_solves: dict[Task, Mapping[str, float]] = {}

    def ask(self, overlay: Overlay, records: Sequence[Record], *, between: Callable[[], None] = lambda: None) -> list[Outcome]:
        """Every question of every record, answered by an overlay."""
        asks = [ask for record in records for ask in list_questions(record, self._base.surfaces)]
        return measure_outcomes(self._view_of(overlay), overlay.adapter, self._reference, asks, yield_to_answers=between)

    def score(self, overlay: Overlay, edit: Edit, between: Callable[[], None]) -> Mapping[str, Any]:
        """What an edit's report gains: the scores of its probes."""
        return build_edit_report(self.ask(overlay, [build_record(edit, id=edit.id)], between=between))

    def full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], between: Callable[[], None]
    ) -> Mapping[str, Any]:
        """Every figure of the field, for a version that holds the edits `live`."""
        view = self._view_of(overlay)
        return measure_full(view, overlay.adapter, self._reference, records, live=live, yield_to_answers=between)

    def capability(self, overlay: Overlay, *, between: Callable[[], None] = lambda: None) -> Mapping[str, Any]:
        """What a version still solves of the tasks that this server has. Raises Refused if it has none."""
        self.check_capability()
        view = self._view_of(overlay)
        return measure_capability(
            view, overlay.adapter, self._reference, self._tasks, yield_to_answers=between, cache=self._base_solves
        ).to_json()

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks that this server has."""
        return self._tasks

    def solved(self, overlay: Overlay, tasks: Sequence[Task], between: Callable[[], None]) -> float | None:
        """What a version solves of some tasks, as a share of what the base model solves; None where that is nothing."""
        return measure_capability(
            self._view_of(overlay), overlay.adapter, self._reference, tasks, yield_to_answers=between, cache=self._base_solves
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
    return embedded_tasks()


def embedded_tasks() -> tuple[Task, ...]:
    """The skills of the embedded model that its training did not see."""
    return tuple(Task(item.skill, item.prompt, item.answer) for item in held_out_items())
