"""The evaluator of overlays: it asks questions of a version, beside cached answers of the base model."""

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

YieldToAnswers = Callable[[], None]


def _at_once() -> None:
    """Nobody waits for answers."""


class Evaluator:
    """Asks questions of overlays. The base model's answers are computed once and cached."""

    def __init__(self, base: Base, view_of: Callable[[Overlay], View], tasks: Sequence[Task] = ()) -> None:
        self._base = base
        self._view_of = view_of
        self._tasks = tasks
        self._reference = Reference(view_of(EMPTY))
        self._base_scores: dict[Task, Mapping[str, float]] = {}

    def ask(self, overlay: Overlay, records: Sequence[Record], *, yield_to_answers: YieldToAnswers = _at_once) -> list[Outcome]:
        """The outcome of every question of every record, answered with an overlay."""
        questions = [question for record in records for question in list_questions(record, self._base.surfaces)]
        return measure_outcomes(
            self._view_of(overlay), overlay.adapter, self._reference, questions, yield_to_answers=yield_to_answers
        )

    def score(self, overlay: Overlay, edit: Edit, yield_to_answers: YieldToAnswers) -> Mapping[str, Any]:
        """The scores of an edit's probes, for its report."""
        return build_edit_report(self.ask(overlay, [build_record(edit, id=edit.id)], yield_to_answers=yield_to_answers))

    def measure_full(
        self, overlay: Overlay, records: Sequence[Record], *, live: Sequence[Record], yield_to_answers: YieldToAnswers
    ) -> Mapping[str, Any]:
        """All metrics of the field, for a version that holds the edits `live`."""
        view = self._view_of(overlay)
        return measure_full(view, overlay.adapter, self._reference, records, live=live, yield_to_answers=yield_to_answers)

    def measure_capability(self, overlay: Overlay, *, yield_to_answers: YieldToAnswers = _at_once) -> Mapping[str, Any]:
        """The capability of a version on this server's tasks. Raises Refused if the server has no tasks."""
        self.check_capability()
        view = self._view_of(overlay)
        return measure_capability(
            view, overlay.adapter, self._reference, self._tasks, yield_to_answers=yield_to_answers, cache=self._base_scores
        ).to_json()

    @property
    def tasks(self) -> Sequence[Task]:
        """The capability tasks of this server."""
        return self._tasks

    def measure_capability_ratio(self, overlay: Overlay, tasks: Sequence[Task], yield_to_answers: YieldToAnswers) -> float | None:
        """The capability of a version on some tasks, as a share of the base model's; None if the base model solves none."""
        return measure_capability(
            self._view_of(overlay),
            overlay.adapter,
            self._reference,
            tasks,
            yield_to_answers=yield_to_answers,
            cache=self._base_scores,
        ).ratio

    def check_capability(self) -> None:
        """Raise Refused if this server has no capability tasks."""
        if not self._tasks:
            raise Refused("this server has no capability tasks: set capability_file", field="capability")


def capability_tasks(settings: Settings) -> tuple[Task, ...]:
    """The tasks of `capability_file`, else those of the embedded model, else none. Raises Refused for a malformed file."""
    if settings.capability_file is not None:
        return load_tasks(settings.capability_file)
    if settings.model != "atlas":
        return ()
    return embedded_tasks()


def embedded_tasks() -> tuple[Task, ...]:
    """Tasks for the embedded model: items of its skills that its training held out."""
    return tuple(Task(item.skill, item.prompt, item.answer) for item in held_out_items())
