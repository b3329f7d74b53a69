"""Evaluations side by side, on the questions that all of them asked: a mean over other questions is another figure."""

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
    """One of the evaluations; `left_out` of its questions were not asked by all others."""

    id: str
    version: int
    about: Mapping[str, Any]
    questions: int
    left_out: int


@dataclass(frozen=True, kw_only=True)
class ComparedFigure:
    """One figure of every evaluation, in order; differences with their standard errors, gains and losses are to the first."""

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
    """`figures` are about the `shared` questions alone."""

    evaluations: list[ComparedEvaluation]
    shared: int
    notes: list[str]
    figures: list[ComparedFigure]
    capability: list[Mapping[str, Any]] | None
    full: list[Mapping[str, Any]] | None


def latest_evaluations(store: Store, numbers: Sequence[int]) -> list[str]:
    """The last evaluation of each version that is done and asked questions. Raises NotFound for a version without one."""
    ids = []
    with store.read() as connection:
        for number in numbers:
            found = evaluations.find_latest(connection, number)
            if found is None:
                raise NotFound("a version has no evaluation that is done", field="versions")
            ids.append(found)
    return ids


def compare_evals(store: Store, ids: Sequence[str]) -> Comparison:
    """Evaluations side by side. Raises NotFound, Conflict if one has no result, Refused if one is named twice."""
    if len(set(ids)) < len(ids):
        raise Refused("an evaluation is not compared with itself", field="ids")
    with store.read() as connection:
        found = [evaluations.get(connection, eval_id) for eval_id in ids]
        if any(one.status != "done" for one in found):
            raise Conflict("only evaluations that are done can be compared", field="ids")
        answers = [_answers(evaluations.read_outcomes(connection, one.id)) for one in found]
    shared = set(answers[0]).intersection(*answers[1:])
    same = all(len(of) == len(shared) for of in answers)
    return Comparison(
        evaluations=[
            ComparedEvaluation(id=one.id, version=one.version, about=one.about, questions=len(of), left_out=len(of) - len(shared))
            for one, of in zip(found, answers, strict=True)
        ],
        shared=len(shared),
        notes=_notes(found, same, len(shared)),
        figures=[figure for judged in (1, 2) for kind in range(len(KINDS)) for figure in _figure(answers, shared, kind, judged)],
        capability=_side_by_side(found, "capability") if _same_tasks(found) else None,
        full=_side_by_side(found, "full") if same else None,
    )


def _answers(outcomes: Sequence[Any] | None) -> Answers:
    """By question. One that was asked twice was answered alike twice."""
    return {digest: (kind, float(greedy), tokens) for digest, kind, greedy, tokens in outcomes or ()}


def _figure(answers: Sequence[Answers], shared: set[str], kind: int, judged: int) -> list[ComparedFigure]:
    """The figure of one kind of question by one judgement, if there are such questions."""
    questions = sorted(question for question in shared if answers[0][question][0] == kind)
    if not questions:
        return []
    values = [[float(of[question][judged]) for question in questions] for of in answers]
    changes = [[value - first for value, first in zip(of, values[0], strict=True)] for of in values]
    return [
        ComparedFigure(
            name=KINDS[kind],
            judged="greedy" if judged == 1 else "tokens",
            n=len(questions),
            scores=[_mean(of) for of in values],
            differences=[_mean(change) for change in changes],
            standard_errors=[stdev(change) / len(change) ** 0.5 if len(change) > 1 else None for change in changes],
            gained=[sum(one > 0 for one in change) for change in changes],
            lost=[sum(one < 0 for one in change) for change in changes],
        )
    ]


def _notes(found: Sequence[Evaluation], same: bool, shared: int) -> list[str]:
    notes = []
    if not shared:
        notes.append("these evaluations share no question, so no figure of one can be held against another")
    elif not same:
        notes.append("the evaluations did not ask the same questions: the figures are about those that all of them asked")
    if _measured(found, "full") and not (same and _measured(found, "full") == len(found)):
        notes.append("full metrics are not compared: not all evaluations have them on the same questions")
    if _measured(found, "capability") and not _same_tasks(found):
        notes.append("capability is not compared: not all evaluations measured it on the same tasks")
    return notes


def _same_tasks(found: Sequence[Evaluation]) -> bool:
    tasks = {str((one.result or {}).get("capability", {}).get("tasks")) for one in found}
    return _measured(found, "capability") == len(found) and len(tasks) == 1


def _measured(found: Sequence[Evaluation], name: str) -> int:
    return sum(name in (one.result or {}) for one in found)


def _side_by_side(found: Sequence[Evaluation], name: str) -> list[Mapping[str, Any]] | None:
    return [one.result[name] for one in found if one.result] if _measured(found, name) == len(found) else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
