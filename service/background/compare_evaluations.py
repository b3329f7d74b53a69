"""The comparison of evaluations, on the questions that all of them asked: means over different questions do not compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any, Literal

from service.domain.errors import Conflict, NotFound, Refused
from service.evaluation.report import KINDS
from service.store import evaluations
from service.store.database import Store
from service.store.evaluations import Evaluation

Criterion = Literal["greedy", "tokens"]
Answers = Mapping[str, tuple[int, float, float]]  # question → (kind, greedy, tokens)


@dataclass(frozen=True, kw_only=True)
class ComparedEvaluation:
    """One of the evaluations; `left_out` counts its questions that some other evaluation did not ask."""

    id: str
    version: int
    about: Mapping[str, Any]
    questions: int
    left_out: int


@dataclass(frozen=True, kw_only=True)
class ComparedFigure:
    """One figure of every evaluation, in order. Differences, standard errors, gains and losses are against the first."""

    name: str
    judged: Criterion
    n: int
    scores: list[float]
    differences: list[float]
    standard_errors: list[float | None]
    gained: list[int]
    lost: list[int]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison; `figures` are about the `shared` questions alone."""

    evaluations: list[ComparedEvaluation]
    shared: int
    notes: list[str]
    figures: list[ComparedFigure]
    capability: list[Mapping[str, Any]] | None
    full: list[Mapping[str, Any]] | None


def latest_evaluations(store: Store, numbers: Sequence[int]) -> list[str]:
    """The id of each version's last evaluation that is done and has questions. Raises NotFound for a version without one."""
    ids = []
    with store.read() as connection:
        for number in numbers:
            eval_id = evaluations.find_latest(connection, number)
            if eval_id is None:
                raise NotFound("a version has no evaluation that is done", field="versions")
            ids.append(eval_id)
    return ids


def compare_evals(store: Store, ids: Sequence[str]) -> Comparison:
    """Compare evaluations. Raises NotFound, Conflict if one has no result, Refused if one is named twice."""
    if len(set(ids)) < len(ids):
        raise Refused("an evaluation is not compared with itself", field="ids")
    with store.read() as connection:
        compared = [evaluations.get(connection, eval_id) for eval_id in ids]
        if any(evaluation.status != "done" for evaluation in compared):
            raise Conflict("only evaluations that are done can be compared", field="ids")
        answers = [_answers(evaluations.read_outcomes(connection, evaluation.id)) for evaluation in compared]
    shared = set(answers[0]).intersection(*answers[1:])
    has_same_questions = all(len(own) == len(shared) for own in answers)
    return Comparison(
        evaluations=[
            ComparedEvaluation(
                id=evaluation.id,
                version=evaluation.version,
                about=evaluation.about,
                questions=len(own),
                left_out=len(own) - len(shared),
            )
            for evaluation, own in zip(compared, answers, strict=True)
        ],
        shared=len(shared),
        notes=_notes(compared, has_same_questions, len(shared)),
        figures=[
            figure for judged in (1, 2) for kind in range(len(KINDS)) for figure in _compare_figure(answers, shared, kind, judged)
        ],
        capability=_results(compared, "capability") if _has_same_tasks(compared) else None,
        full=_results(compared, "full") if has_same_questions else None,
    )


def _answers(outcomes: Sequence[Any] | None) -> Answers:
    """The answers by question. A question that was asked twice was answered alike twice."""
    return {digest: (kind, float(greedy), tokens) for digest, kind, greedy, tokens in outcomes or ()}


def _compare_figure(answers: Sequence[Answers], shared: set[str], kind: int, judged: int) -> list[ComparedFigure]:
    """The figure of one kind of question by one criterion (1: greedy, 2: tokens); none without questions."""
    questions = sorted(question for question in shared if answers[0][question][0] == kind)
    if not questions:
        return []
    values = [[float(own[question][judged]) for question in questions] for own in answers]
    changes = [[value - first for value, first in zip(own, values[0], strict=True)] for own in values]
    return [
        ComparedFigure(
            name=KINDS[kind],
            judged="greedy" if judged == 1 else "tokens",
            n=len(questions),
            scores=[_mean(own) for own in values],
            differences=[_mean(change) for change in changes],
            standard_errors=[stdev(change) / len(change) ** 0.5 if len(change) > 1 else None for change in changes],
            gained=[sum(difference > 0 for difference in change) for change in changes],
            lost=[sum(difference < 0 for difference in change) for change in changes],
        )
    ]


def _notes(compared: Sequence[Evaluation], has_same_questions: bool, shared: int) -> list[str]:
    notes = []
    if not shared:
        notes.append("these evaluations share no question, so their figures cannot be compared")
    elif not has_same_questions:
        notes.append("the evaluations did not ask the same questions: the figures are about the questions that all of them asked")
    if _count(compared, "full") and not (has_same_questions and _results(compared, "full")):
        notes.append("full metrics are not compared: not all evaluations have them on the same questions")
    if _count(compared, "capability") and not _has_same_tasks(compared):
        notes.append("capability is not compared: not all evaluations measured it on the same tasks")
    return notes


def _has_same_tasks(compared: Sequence[Evaluation]) -> bool:
    tasks = {str((evaluation.result or {}).get("capability", {}).get("tasks")) for evaluation in compared}
    return _count(compared, "capability") == len(compared) and len(tasks) == 1


def _count(compared: Sequence[Evaluation], name: str) -> int:
    """The number of evaluations whose result has the part `name`."""
    return sum(name in (evaluation.result or {}) for evaluation in compared)


def _results(compared: Sequence[Evaluation], name: str) -> list[Mapping[str, Any]] | None:
    """The part `name` of every result, or None if some evaluation lacks it."""
    if _count(compared, name) < len(compared):
        return None
    return [evaluation.result[name] for evaluation in compared if evaluation.result]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
