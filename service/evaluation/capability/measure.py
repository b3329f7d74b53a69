"""Capability: how many small tasks a version solves, as a share of the tasks that the base model solves.

Scores of one task are 0 or 1. `exact`: the whole greedy answer is right. `acc`: the right choice has the largest log-likelihood.
`acc_norm`: it has the largest log-likelihood per character, which does not favour short choices (both as in
lm-evaluation-harness). `em`: the answer extracted from the generated text is right.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from statistics import fmean, stdev
from typing import Any

from service.domain.errors import Refused
from service.evaluation.capability.tasks import Task, load_tasks
from service.evaluation.metrics.figures import mean
from service.evaluation.metrics.log_likelihood import compute_log_likelihoods
from service.evaluation.metrics.matching import extract_number, normalise_squad
from service.evaluation.metrics.outcomes import Reference, YieldToAnswers, predict_choices
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

__all__ = ["Capability", "MetricMeans", "Task", "measure_capability", "load_tasks"]

TASKS_AT_ONCE = 16
LONGEST_SOLUTION = 256  # tokens, as in lm-evaluation-harness
LONGEST_TEXT = 32  # tokens, as in WILD's and LocFT's evaluation
Scores = Mapping[str, float]  # by metric; the first one is the primary metric


@dataclass(frozen=True)
class MetricMeans:
    """One metric on one skill: means over n tasks, each with its standard error (None for fewer than two tasks)."""

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
    """The share of solved tasks, by the primary metric of each kind of task. `left_out` counts tasks too long for the model.

    The share of no tasks is None.
    """

    version: float | None
    base: float | None
    by_skill: dict[str, tuple[float, float]]  # skill → (version, base)
    n: int = 0
    figures: dict[str, dict[str, MetricMeans]] = field(default_factory=dict)  # skill → metric → figure
    left_out: int = 0
    tasks: str = ""  # a digest of the set of tasks: figures of two sets cannot be compared

    @property
    def ratio(self) -> float | None:
        """The version's share over the base model's; None where the base model solves nothing."""
        return _ratio(self.version, self.base)

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON; under each skill its metrics."""
        by_skill = {
            skill: {name: metric.to_json() for name, metric in metrics.items()} for skill, metrics in self.figures.items()
        }
        whole = {"ratio": self.ratio, "version": self.version, "base": self.base, "n": self.n}
        return {**whole, "left_out": self.left_out, "tasks": self.tasks, "by_skill": by_skill}


def measure_capability(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    tasks: Sequence[Task],
    *,
    yield_to_answers: YieldToAnswers = lambda: None,
    cache: MutableMapping[Task, Scores] | None = None,
) -> Capability:
    """Score a version on `tasks` beside the base model. `cache` keeps the base model's scores for the next call."""
    eligible = [task for task in tasks if _fits_model(reference.base, task)]
    base_scores = {} if cache is None else cache
    new_scores = _score_tasks(reference.view, None, [task for task in eligible if task not in base_scores], yield_to_answers)
    base_scores.update(new_scores)
    version_scores = _score_tasks(view, adapter, eligible, yield_to_answers)
    pairs = {task: (version_scores[task], base_scores[task]) for task in eligible}
    primary_scores = [[next(iter(scores.values())) for scores in pairs[task]] for task in eligible]
    skills = sorted({task.skill for task in eligible})
    figures = {skill: _build_metric_means([pairs[task] for task in eligible if task.skill == skill]) for skill in skills}
    primary_figures = {skill: next(iter(metrics.values())) for skill, metrics in figures.items()}
    return Capability(
        version=mean([version for version, _ in primary_scores]),
        base=mean([base for _, base in primary_scores]),
        by_skill={skill: (figure.version, figure.base) for skill, figure in primary_figures.items()},
        n=len(eligible),
        figures=figures,
        left_out=len(tasks) - len(eligible),
        tasks=sha256(repr(sorted(eligible, key=repr)).encode()).hexdigest()[:16],
    )


def _score_tasks(
    view: View, adapter: Adapter | None, tasks: Sequence[Task], yield_to_answers: YieldToAnswers
) -> dict[Task, Scores]:
    """The scores of each task. Tasks of one kind are scored together, a batch at a time."""
    scores: dict[Task, Scores] = {}
    scorers = {"exact": _score_exact, "choice": _score_choices, "number": _score_text, "text": _score_text}
    for kind, scorer in scorers.items():
        kind_tasks = [task for task in dict.fromkeys(tasks) if task.kind == kind]
        for start in range(0, len(kind_tasks), TASKS_AT_ONCE):
            batch = kind_tasks[start : start + TASKS_AT_ONCE]
            scores.update(zip(batch, scorer(view, adapter, batch, yield_to_answers), strict=True))
            yield_to_answers()
    return scores


def _score_exact(view: View, adapter: Adapter | None, tasks: Sequence[Task], yield_to_answers: YieldToAnswers) -> list[Scores]:
    rows = [encode_row(view.base, task.prompt, task.answer) for task in tasks]
    predictions = predict_choices(view, adapter, rows, yield_to_answers=yield_to_answers)
    return [{"exact": float(ids == row.target_ids)} for ids, row in zip(predictions, rows, strict=True)]


def _score_choices(view: View, adapter: Adapter | None, tasks: Sequence[Task], yield_to_answers: YieldToAnswers) -> list[Scores]:
    rows = [encode_row(view.base, task.prompt, choice, eos=False) for task in tasks for choice in task.choices]
    sums = iter(compute_log_likelihoods(view, adapter, rows, yield_to_answers=yield_to_answers))
    scores: list[Scores] = []
    for task in tasks:
        totals = [next(sums)[0] for _ in task.choices]
        by_character = [total / len(choice) for total, choice in zip(totals, task.choices, strict=True)]
        scores.append({"acc": _is_right_choice(task, totals), "acc_norm": _is_right_choice(task, by_character)})
    return scores


def _score_text(view: View, adapter: Adapter | None, tasks: Sequence[Task], yield_to_answers: YieldToAnswers) -> list[Scores]:
    prompts = [encode_prompt(view.base, task.prompt) for task in tasks]
    longest = LONGEST_SOLUTION if tasks[0].kind == "number" else LONGEST_TEXT
    answers = decode_greedily(view, adapter, prompts, max_new_tokens=longest, yield_to_answers=yield_to_answers)
    return [{"em": float(_is_right_text(task, decode_answer(view.base, ids)))} for task, ids in zip(tasks, answers, strict=True)]


def _is_right_choice(task: Task, likelihoods: Sequence[float]) -> float:
    best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
    return float(task.choices[best] == task.answer)


def _is_right_text(task: Task, written: str) -> bool:
    if task.kind == "number":
        value = extract_number(written)
        return value is not None and value == extract_number(task.answer)
    line = written.split("\n")[0]
    if "." not in task.answer:
        line = line.split(".")[0]
    return normalise_squad(line) == normalise_squad(task.answer)


def _fits_model(base: Base, task: Task) -> bool:
    try:
        encode_prompt(base, task.prompt)
        for answer in task.choices or ((task.answer,) if task.kind == "exact" else ()):
            encode_row(base, task.prompt, answer)
    except Refused:
        return False
    return True


def _build_metric_means(pairs: Sequence[tuple[Scores, Scores]]) -> dict[str, MetricMeans]:
    """The means of one skill by metric. A skill may hold tasks of several kinds."""
    metrics = dict.fromkeys(name for version, _ in pairs for name in version)
    means = {}
    for name in metrics:
        version = [scores[name] for scores, _ in pairs if name in scores]
        base = [scores[name] for _, scores in pairs if name in scores]
        means[name] = MetricMeans(len(version), fmean(version), fmean(base), _standard_error(version), _standard_error(base))
    return means


def _standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean: the sample's standard deviation over the square root of n."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _ratio(version: float | None, base: float | None) -> float | None:
    return version / base if version is not None and base else None
