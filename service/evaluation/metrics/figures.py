"""Scores of single questions as figures: a mean, its n, a label with the source of the definition, and the base model's mean."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.evaluation.records import EvalQuestion

Figure = dict[str, Any]
MetricScores = Mapping[str, float]


@dataclass(frozen=True)
class ScoredQuestion:
    """A question with its scores by metric. `reference` has the base model's scores, or those of the base in other batches."""

    question: EvalQuestion
    scores: MetricScores
    reference: MetricScores = field(default_factory=dict)


def build_figure(values: Sequence[float], label: str, **extra: Any) -> Figure:
    """A mean and its n; the mean of nothing is None, never 0 or 1."""
    return {"score": mean(values), "n": len(values), "label": label, **extra}


def build_figures(questions: Sequence[ScoredQuestion], labels: Mapping[str, str], reference: str) -> dict[str, Figure]:
    """The figure of every metric. The mean of the reference scores is added under the name `reference`."""
    return {name: _reference_figure(questions, name, label, reference) for name, label in labels.items()}


def build_group_figures(
    questions: Sequence[ScoredQuestion], labels: Mapping[str, str], reference: str
) -> dict[str, dict[str, Figure]]:
    """The figures of every group of probes. Questions without a group are left out."""
    groups = group_by(questions, lambda question: question.question.group)
    return {name: build_figures(groups[name], labels, reference) for name in sorted(groups)}


def build_knowedit_figure(questions: Sequence[ScoredQuestion], metric: str, label: str) -> Figure:
    """KnowEdit's aggregation: the mean within each group of a case, over the groups of the case, over cases; n counts cases.

    A probe without a group is the only group of its case. A case with one probe weighs as much as a case with twenty.
    """
    values = []
    for case in group_by(questions, lambda question: question.question.record).values():
        groups = group_by(case, lambda question: question.question.group or "").values()
        means = [value for group in groups if (value := mean(_values(group, metric))) is not None]
        if means:
            values.append(sum(means) / len(means))
    return build_figure(values, label)


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def group_by(questions: Iterable[ScoredQuestion], key: Callable[[ScoredQuestion], str | None]) -> dict[str, list[ScoredQuestion]]:
    """Questions by the value of `key`. Questions without a value are left out."""
    groups: dict[str, list[ScoredQuestion]] = defaultdict(list)
    for question in questions:
        if (label := key(question)) is not None:
            groups[label].append(question)
    return groups


def _reference_figure(questions: Sequence[ScoredQuestion], name: str, label: str, reference: str) -> Figure:
    reference_scores = [question.reference[name] for question in questions if name in question.reference]
    return build_figure(_values(questions, name), label, **{reference: mean(reference_scores)})


def _values(questions: Sequence[ScoredQuestion], metric: str) -> list[float]:
    return [question.scores[metric] for question in questions if metric in question.scores]
