"""Reports of outcomes: every score has its n, the number of questions.

Generality is reported apart for trained and untrained rephrases, and locality by group and inside and outside the pool of neutral
prompts, as far as the probes say so.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
Moment = Literal["after_edit", "after_all"]
Figure = dict[str, Any]


def build_report(
    outcomes: Sequence[Outcome], *, moment: Moment | None = None, left_out: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Scores under `greedy` and `tokens`, and under `base` the base model's scores on the same questions.

    `moment` says whether each edit was measured right after it or all edits after the last one. `left_out` counts the questions
    that were not asked, by reason. Each is in the report if it is not None.
    """
    return {
        **({} if moment is None else {"moment": moment}),
        **({} if left_out is None else {"left_out": dict(left_out)}),
        "edits": len({outcome.question.record for outcome in outcomes}),
        "greedy": _scores(outcomes, lambda outcome: float(outcome.greedy)),
        "tokens": _scores(outcomes, lambda outcome: outcome.tokens),
        "base": {
            "greedy": _kind_figures(outcomes, lambda outcome: float(outcome.base_greedy)),
            "tokens": _kind_figures(outcomes, lambda outcome: outcome.base_tokens),
        },
    }


def build_edit_report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The part of an edit's report that comes from its probes: greedy scores, token scores, and a verdict on generality.

    `generality` is `untested` without rephrases, `literal only` where the edit is answered on its own prompt and on no untrained
    rephrase (trained ones, where there are no others), else `general`.
    """
    scores = build_report(outcomes)
    return {"scores": {"greedy": scores["greedy"], "tokens": scores["tokens"]}, "generality": _verdict(scores["greedy"])}


def _verdict(scores: Mapping[str, Any]) -> str:
    generality = scores["generality"]
    relevant = generality["untrained"] if generality["untrained"]["n"] else generality["trained"]
    if not relevant["n"]:
        return "untested"
    return "literal only" if scores["reliability"]["score"] and not relevant["score"] else "general"


def _scores(outcomes: Sequence[Outcome], value: Callable[[Outcome], float]) -> dict[str, Figure]:
    scores = _kind_figures(outcomes, value)
    by_kind = {kind: [outcome for outcome in outcomes if outcome.question.kind == kind] for kind in KINDS}
    scores["generality"] |= {
        "trained": _figure((outcome for outcome in by_kind["generality"] if outcome.question.trained), value),
        "untrained": _figure((outcome for outcome in by_kind["generality"] if not outcome.question.trained), value),
    }
    scores["locality"] |= {
        "inside": _figure((outcome for outcome in by_kind["locality"] if outcome.question.pool is True), value),
        "outside": _figure((outcome for outcome in by_kind["locality"] if outcome.question.pool is False), value),
    }
    for kind in ("generality", "locality", "portability"):
        scores[kind]["groups"] = _group_figures(by_kind[kind], value)
    return scores


def _kind_figures(outcomes: Sequence[Outcome], value: Callable[[Outcome], float]) -> dict[str, Figure]:
    return {kind: _figure((outcome for outcome in outcomes if outcome.question.kind == kind), value) for kind in KINDS}


def _group_figures(outcomes: Iterable[Outcome], value: Callable[[Outcome], float]) -> dict[str, Figure]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.question.group is not None:
            groups[outcome.question.group].append(outcome)
    return {group: _figure(groups[group], value) for group in sorted(groups)}


def _figure(outcomes: Iterable[Outcome], value: Callable[[Outcome], float]) -> Figure:
    """A mean and its n; the mean of nothing is None, never 0 or 1."""
    values = [value(outcome) for outcome in outcomes]
    return {"score": sum(values) / len(values) if values else None, "n": len(values)}
