"""Marks of single questions as figures: a score, its n, the label of who defines it so, and the base model's score beside it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.evaluation.records import Ask

Figure = dict[str, Any]
Marks = Mapping[str, float]


@dataclass(frozen=True)
class Marked:
    """A question with its marks by metric, and what the base model, or the base model in other batches, gets by the same."""

    ask: Ask
    marks: Marks
    beside: Marks = field(default_factory=dict)


def figure(values: Sequence[float], label: str, **more: Any) -> Figure:
    """A mean and its n; the mean of nothing is None, never 0 or 1."""
    return {"score": mean(values), "n": len(values), "label": label, **more}


def figures(marked: Sequence[Marked], labels: Mapping[str, str], beside: str) -> dict[str, Figure]:
    """The figure of every metric, with the one it is read against under the name `beside`."""
    return {name: _figure(marked, name, label, beside) for name, label in labels.items()}


def grouped(marked: Sequence[Marked], labels: Mapping[str, str], beside: str) -> dict[str, dict[str, Figure]]:
    """The same by group of probes, for questions that belong to one."""
    groups = by(marked, lambda one: one.ask.group)
    return {name: figures(groups[name], labels, beside) for name in sorted(groups)}


def knowedit(marked: Sequence[Marked], metric: str, label: str) -> Figure:
    """KnowEdit's aggregation: the mean within each group of a case, over the groups of the case, over cases; n counts cases.

    A probe without a group is its case's one group. It weighs a case with one probe as much as one with twenty.
    """
    values = []
    for case in by(marked, lambda one: one.ask.record).values():
        groups = by(case, lambda one: one.ask.group or "").values()
        found = [value for group in groups if (value := mean(_values(group, metric))) is not None]
        if found:
            values.append(sum(found) / len(found))
    return figure(values, label)


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def by(marked: Iterable[Marked], name: Callable[[Marked], str | None]) -> dict[str, list[Marked]]:
    """Questions by name, those without one left out."""
    groups: dict[str, list[Marked]] = defaultdict(list)
    for one in marked:
        if (of := name(one)) is not None:
            groups[of].append(one)
    return groups


def _figure(marked: Sequence[Marked], name: str, label: str, beside: str) -> Figure:
    others = [one.beside[name] for one in marked if name in one.beside]
    return figure(_values(marked, name), label, **{beside: mean(others)})


def _values(marked: Sequence[Marked], metric: str) -> list[float]:
    return [one.marks[metric] for one in marked if metric in one.marks]
