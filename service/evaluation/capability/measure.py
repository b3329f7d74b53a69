"""What edits must not cost: how many small tasks a version still solves, as a share of what the base model solves.

Scores, each of one task 0 or 1: `exact`, the greedy answer to its end; `acc`, the right choice has the largest log-likelihood;
`acc_norm`, the largest one by character, which does not favour short choices (both as in lm-evaluation-harness); `em`, the answer
found in what was written is the right one.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from statistics import fmean, stdev
from typing import Any

from service.domain.errors import Refused
from service.evaluation.capability.tasks import Task, load_tasks
from service.evaluation.metrics.figures import mean
from service.evaluation.metrics.log_likelihood import log_likelihoods
from service.evaluation.metrics.matching import number, squad
from service.evaluation.metrics.outcomes import Between, Reference, choices
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

__all__ = ["Capability", "MetricMeans", "Task", "capability", "load_tasks"]

TASKS_AT_ONCE = 16
LONGEST_SOLUTION = 256  # tokens, as in lm-evaluation-harness
LONGEST_TEXT = 32  # tokens, as in WILD's and LocFT's evaluation
Scores = Mapping[str, float]  # by metric, the one that counts first


@dataclass(frozen=True)
class MetricMeans:
    """One metric on one skill: means over n tasks, each with its standard error (None for fewer than two)."""

    n: int
    version: float
    base: float
    version_se: float | None
    base_se: float | None

    def to_json(self) -> dict[str, Any]:
        """The figure as JSON, with the ratio of the means."""
        means = {"version": self.version, "se": self.version_se, "base": self.base, "base_se": self.base_se}
        return {"n": self.n, **means, "ratio": _ratio(self.version, self.base)}


@dataclass(frozen=True)
class Capability:
    """The share of tasks solved, by the metric that counts for each kind of task; `left_out` were too long for the model. The
    share of no tasks is None.
    """

    version: float | None
    base: float | None
    by_skill: dict[str, tuple[float, float]]  # skill → (version, base)
    n: int = 0
    figures: dict[str, dict[str, MetricMeans]] = field(default_factory=dict)  # skill → metric → figure
    left_out: int = 0
    tasks: str = ""  # names the set of tasks by content: figures of two sets cannot be compared

    @property
    def ratio(self) -> float | None:
        """The version's share over the base model's; None where the base model solves nothing."""
        return _ratio(self.version, self.base)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON; under each skill its metrics."""
        by_skill = {skill: {name: one.to_json() for name, one in of.items()} for skill, of in self.figures.items()}
        whole = {"ratio": self.ratio, "version": self.version, "base": self.base, "n": self.n}
        return {**whole, "left_out": self.left_out, "tasks": self.tasks, "by_skill": by_skill}


def capability(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    tasks: Sequence[Task],
    *,
    between: Between = lambda: None,
    remembered: MutableMapping[Task, Scores] | None = None,
) -> Capability:
    """How a version solves `tasks`, beside the base model; `remembered` keeps the base model's scores for the next call."""
    fitting = [task for task in tasks if _fits(reference.base, task)]
    of_base = {} if remembered is None else remembered
    base_scores = _scores(reference.view, None, [task for task in fitting if task not in of_base], between)
    of_base.update(base_scores)
    of_version = _scores(view, adapter, fitting, between)
    pairs = {task: (of_version[task], of_base[task]) for task in fitting}
    counting = [[next(iter(scores.values())) for scores in pairs[task]] for task in fitting]
    skills = sorted({task.skill for task in fitting})
    figures = {skill: _figures([pairs[task] for task in fitting if task.skill == skill]) for skill in skills}
    first = {skill: next(iter(of.values())) for skill, of in figures.items()}
    return Capability(
        version=mean([version for version, _ in counting]),
        base=mean([base for _, base in counting]),
        by_skill={skill: (figure.version, figure.base) for skill, figure in first.items()},
        n=len(fitting),
        figures=figures,
        left_out=len(tasks) - len(fitting),
        tasks=sha256(repr(sorted(fitting, key=repr)).encode()).hexdigest()[:16],
    )


def _scores(view: View, adapter: Adapter | None, tasks: Sequence[Task], between: Between) -> dict[Task, Scores]:
    """What each task came to, tasks of one kind together and a few at a time."""
    found: dict[Task, Scores] = {}
    ways = {"exact": _exact, "choice": _chosen, "number": _written, "text": _written}
    for kind, way in ways.items():
        of_kind = [task for task in dict.fromkeys(tasks) if task.kind == kind]
        for start in range(0, len(of_kind), TASKS_AT_ONCE):
            some = of_kind[start : start + TASKS_AT_ONCE]
            found.update(zip(some, way(view, adapter, some, between), strict=True))
            between()
    return found


def _exact(view: View, adapter: Adapter | None, tasks: Sequence[Task], between: Between) -> list[Scores]:
    rows = [encode_row(view.base, task.prompt, task.answer) for task in tasks]
    said = choices(view, adapter, rows, between=between)
    return [{"exact": float(ids == row.target_ids)} for ids, row in zip(said, rows, strict=True)]


def _chosen(view: View, adapter: Adapter | None, tasks: Sequence[Task], between: Between) -> list[Scores]:
    rows = [encode_row(view.base, task.prompt, choice, eos=False) for task in tasks for choice in task.choices]
    sums = iter(log_likelihoods(view, adapter, rows, between=between))
    found: list[Scores] = []
    for task in tasks:
        of_choice = [next(sums)[0] for _ in task.choices]
        by_character = [total / len(choice) for total, choice in zip(of_choice, task.choices, strict=True)]
        found.append({"acc": _is_right(task, of_choice), "acc_norm": _is_right(task, by_character)})
    return found


def _written(view: View, adapter: Adapter | None, tasks: Sequence[Task], between: Between) -> list[Scores]:
    prompts = [encode_prompt(view.base, task.prompt) for task in tasks]
    longest = LONGEST_SOLUTION if tasks[0].kind == "number" else LONGEST_TEXT
    answers = decode_greedily(view, adapter, prompts, max_new_tokens=longest, yield_to_answers=between)
    return [{"em": float(_is_found(task, decode_answer(view.base, ids)))} for task, ids in zip(tasks, answers, strict=True)]


def _is_right(task: Task, likelihoods: Sequence[float]) -> float:
    best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
    return float(task.choices[best] == task.answer)


def _is_found(task: Task, written: str) -> bool:
    if task.kind == "number":
        found = number(written)
        return found is not None and found == number(task.answer)
    first = written.split("\n")[0]
    if "." not in task.answer:
        first = first.split(".")[0]
    return squad(first) == squad(task.answer)


def _fits(base: Base, task: Task) -> bool:
    try:
        encode_prompt(base, task.prompt)
        for answer in task.choices or ((task.answer,) if task.kind == "exact" else ()):
            encode_row(base, task.prompt, answer)
    except Refused:
        return False
    return True


def _figures(pairs: Sequence[tuple[Scores, Scores]]) -> dict[str, MetricMeans]:
    """By metric; a skill may hold tasks of several kinds."""
    metrics = dict.fromkeys(name for version, _ in pairs for name in version)
    found = {}
    for name in metrics:
        version = [scores[name] for scores, _ in pairs if name in scores]
        base = [scores[name] for _, scores in pairs if name in scores]
        found[name] = MetricMeans(len(version), fmean(version), fmean(base), _standard_error(version), _standard_error(base))
    return found


def _standard_error(values: Sequence[float]) -> float | None:
    """Of the mean: the sample's standard deviation over the square root of n."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _ratio(version: float | None, base: float | None) -> float | None:
    return version / base if version is not None and base else None
