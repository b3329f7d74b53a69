"""Marks of single questions as figures: a score, its n, the label of who defines it so, and the base model's score beside it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.evaluation.records import EvalQuestion

Figure = dict[str, Any]
MetricScores = Mapping[str, float]


@dataclass(frozen=True)
class ScoredQuestion:
    """A question with its marks by metric, and what the base model, or the base model in other batches, gets by the same."""

    ask: EvalQuestion
    marks: MetricScores
    beside: MetricScores = field(default_factory=dict)


def build_figure(values: Sequence[float], label: str, **more: Any) -> Figure:
    """A mean and its n; the mean of nothing is None, never 0 or 1."""
    return {"score": mean(values), "n": len(values), "label": label, **more}


def build_figures(marked: Sequence[ScoredQuestion], labels: Mapping[str, str], beside: str) -> dict[str, Figure]:
    """The figure of every metric, with the one it is read against under the name `beside`."""
    return {name: _reference_figure(marked, name, label, beside) for name, label in labels.items()}


def build_group_figures(marked: Sequence[ScoredQuestion], labels: Mapping[str, str], beside: str) -> dict[str, dict[str, Figure]]:
    """The same by group of probes, for questions that belong to one."""
    groups = group_by(marked, lambda one: one.ask.group)
    return {name: build_figures(groups[name], labels, beside) for name in sorted(groups)}


def build_knowedit_figure(marked: Sequence[ScoredQuestion], metric: str, label: str) -> Figure:
    """KnowEdit's aggregation: the mean within each group of a case, over the groups of the case, over cases; n counts cases.

    A probe without a group is its case's one group. It weighs a case with one probe as much as one with twenty.
    """
    values = []
    for case in group_by(marked, lambda one: one.ask.record).values():
        groups = group_by(case, lambda one: one.ask.group or "").values()
        found = [value for group in groups if (value := mean(_values(group, metric))) is not None]
        if found:
            values.append(sum(found) / len(found))
    return build_figure(values, label)


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def group_by(marked: Iterable[ScoredQuestion], name: Callable[[ScoredQuestion], str | None]) -> dict[str, list[ScoredQuestion]]:
    """Questions by name, those without one left out."""
    groups: dict[str, list[ScoredQuestion]] = defaultdict(list)
    for one in marked:
        if (of := name(one)) is not None:
            groups[of].append(one)
    return groups


def _reference_figure(marked: Sequence[ScoredQuestion], name: str, label: str, beside: str) -> Figure:
    others = [one.beside[name] for one in marked if name in one.beside]
    return build_figure(_values(marked, name), label, **{beside: mean(others)})


def _values(marked: Sequence[ScoredQuestion], metric: str) -> list[float]:
    return [one.marks[metric] for one in marked if metric in one.marks]
