"""Outcomes as figures: each with the number of questions behind it, since a score without its n says nothing.

Generality is given apart for rephrases that were trained and that were not, locality by group and inside and outside the pool
that neutral prompts were taken from, as far as the probes say so.
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
    """Scores under `greedy` and `tokens`, and under `base` what the base model scores on the same questions.

    `moment` says whether each edit was asked for right after it or all of them after the last, `left_out` how many questions were
    not asked and why; both stand in the report where they are given.
    """
    return {
        **({} if moment is None else {"moment": moment}),
        **({} if left_out is None else {"left_out": dict(left_out)}),
        "edits": len({outcome.ask.record for outcome in outcomes}),
        "greedy": _scores(outcomes, lambda outcome: float(outcome.greedy)),
        "tokens": _scores(outcomes, lambda outcome: outcome.tokens),
        "base": {
            "greedy": _plain(outcomes, lambda outcome: float(outcome.base_greedy)),
            "tokens": _plain(outcomes, lambda outcome: outcome.base_tokens),
        },
    }


def build_edit_report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The part of an edit's report that its probes fill in: greedy scores, tokens beside them, and what they say of generality.

    `generality` is `untested` without rephrases, `literal only` where the edit is answered on its own prompt and on no untrained
    rephrase (trained ones, where there are no others), else `general`.
    """
    scores = build_report(outcomes)
    return {"scores": {"greedy": scores["greedy"], "tokens": scores["tokens"]}, "generality": _verdict(scores["greedy"])}


def _verdict(scores: Mapping[str, Any]) -> str:
    generality = scores["generality"]
    judged = generality["untrained"] if generality["untrained"]["n"] else generality["trained"]
    if not judged["n"]:
        return "untested"
    return "literal only" if scores["reliability"]["score"] and not judged["score"] else "general"


def _scores(outcomes: Sequence[Outcome], value: Callable[[Outcome], float]) -> dict[str, Figure]:
    scores = _plain(outcomes, value)
    of = {kind: [outcome for outcome in outcomes if outcome.ask.kind == kind] for kind in KINDS}
    scores["generality"] |= {
        "trained": _figure((outcome for outcome in of["generality"] if outcome.ask.trained), value),
        "untrained": _figure((outcome for outcome in of["generality"] if not outcome.ask.trained), value),
    }
    scores["locality"] |= {
        "inside": _figure((outcome for outcome in of["locality"] if outcome.ask.pool is True), value),
        "outside": _figure((outcome for outcome in of["locality"] if outcome.ask.pool is False), value),
    }
    for kind in ("generality", "locality", "portability"):
        scores[kind]["groups"] = _groups(of[kind], value)
    return scores


def _plain(outcomes: Sequence[Outcome], value: Callable[[Outcome], float]) -> dict[str, Figure]:
    return {kind: _figure((outcome for outcome in outcomes if outcome.ask.kind == kind), value) for kind in KINDS}


def _groups(outcomes: Iterable[Outcome], value: Callable[[Outcome], float]) -> dict[str, Figure]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.ask.group is not None:
            groups[outcome.ask.group].append(outcome)
    return {group: _figure(groups[group], value) for group in sorted(groups)}


def _figure(outcomes: Iterable[Outcome], value: Callable[[Outcome], float]) -> Figure:
    """A mean and its n; the mean of nothing is None, never 0 or 1."""
    values = [value(outcome) for outcome in outcomes]
    return {"score": sum(values) / len(values) if values else None, "n": len(values)}
