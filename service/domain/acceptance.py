"""Acceptance: the decision whether measured scores allow the publication of a version. Pure: it measures nothing."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AcceptanceLimits:
    """How much of what the base model knows a publication may lose, beyond the noise of the base against itself.

    All but `prose_divergence` are shares. Prose is judged by its distribution: tokens that are nearly as likely as others flip
    with any change.
    """

    near_loss: float = 0.20  # of the known answers around the new edits, their prompts about other subjects: newly, and in all
    same_subject_loss: float = 0.5  # of the other known answers about their subjects
    far_fall: float = 0.05  # of the known answers far from any edit, for each edit that a publication adds
    far_loss: float = 0.20  # of the same, by all live edits together
    prose_divergence: float = 0.1  # KL(base ‖ version) in nats a token of prose, by all live edits together
    retrain_fall: float = 0.10  # of the far answers, by a retrain, if the edits that it makes live do not allow more
    retrain_losses: float = 0.02  # largest share of the live edits (one edit at least) that a retrain may end without


_ROUNDING = 1e-9
# With fewer answers of a group, one or two of them would decide. About one subject there are few.
FEW_ANSWERS, FEW_ABOUT_A_SUBJECT = 8, 4


@dataclass(frozen=True)
class Decision:
    """Whether a candidate may be published. `reasons` are sentences with figures that say why not.

    `figures` has each judged figure by name: its `value`, a loss, and its `limit`, the largest loss that is allowed.
    `is_about_locality`: a refusal has no other reason than what the candidate would cost the rest of the model.
    """

    is_accepted: bool
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_about_locality: bool = False


def judge_losses(lost: int, live: int, limits: AcceptanceLimits) -> Decision:
    """Judge a retrain that would lose `lost` of the `live` edits that are answered now."""
    allowed = max(1, int(limits.retrain_losses * live))
    figures = {"lost": {"value": lost, "limit": allowed, "of": live}}
    if lost <= allowed:
        return Decision(True, figures=figures)
    return Decision(False, (f"{lost} of {live} edits that are answered now would be lost",), figures)


def judge_both(first: Decision, second: Decision) -> Decision:
    """Two decisions about one candidate as one."""
    refusals = [decision for decision in (first, second) if not decision.is_accepted]
    return Decision(
        not refusals,
        (*first.reasons, *second.reasons),
        {**first.figures, **second.figures},
        all(decision.is_about_locality for decision in refusals),
    )


def judge_scores(
    scores: Mapping[str, Any], parent: Mapping[str, Any], *, edits: int, limits: AcceptanceLimits, retrain: bool = False
) -> Decision:
    """Judge a candidate that makes `edits` more edits live, by its scores and what its parent's have conceded.

    Answers near the edits are judged by what this publication loses. So are far answers, of which a joint batch may cost as much
    as its edits would one by one. Prose, and all answers but those about the same subject, which other edits may change on
    purpose, are also judged by what all live edits have changed together: a total over its limit refuses what adds to it, and
    nothing else. A retrain moves edits that are live already; the move alone may cost `retrain_fall`. What was not measured is
    not judged. A score that is not finite is never accepted. What edits accepted anyway have cost (`conceded` of the parent's
    scores) is taken off the totals: it is not held against the edits after them.
    """
    broken = [name for name, value in _flatten(scores) if not math.isfinite(value)]
    if broken:
        sentences = tuple(f"the score {name} is not finite" for name in broken)
        return Decision(False, sentences, {name: {"value": None, "limit": "finite"} for name in broken})
    judged = list(_judge_locality(scores.get("locality") or {}, parent.get("conceded", {}), edits, limits, retrain=retrain))
    reasons = tuple(one.sentence for one in judged if one.is_refused)
    figures = {one.name: {"value": one.value, "limit": one.limit} for one in judged}
    return Decision(not reasons, reasons, figures, is_about_locality=True)


def new_losses(scores: Mapping[str, Any]) -> dict[str, float]:
    """What a version loses of each total that its parent kept: shares of far answers, and nats a token of prose."""
    locality = scores.get("locality") or {}
    losses = {"far_total": locality["far"]["newly_lost"]} if "far" in locality else {}
    if "prose" in locality:
        losses["prose"] = max(0.0, locality["prose"]["divergence"] - locality["prose"]["parent_divergence"])
    return losses


def total_losses(scores: Mapping[str, Any]) -> dict[str, float]:
    """What a version has lost of each total against the base model."""
    locality = scores.get("locality") or {}
    losses = {"far_total": 1.0 - locality["far"]["kept"]} if "far" in locality else {}
    return losses | ({"prose": locality["prose"]["divergence"]} if "prose" in locality else {})


@dataclass(frozen=True)
class _Judged:
    """A loss and its limit. `is_new`: this publication adds to the loss."""

    name: str
    value: float
    limit: float
    sentence: str
    is_new: bool = True

    @property
    def is_refused(self) -> bool:
        return self.is_new and self.value > self.limit + _ROUNDING


def _judge_locality(
    groups: Mapping[str, Any], conceded: Mapping[str, float], edits: int, limits: AcceptanceLimits, *, retrain: bool
) -> Iterator[_Judged]:
    far_fall = max(limits.far_fall * max(1, edits), limits.retrain_fall if retrain else 0.0)
    by_group = {
        "near": (limits.near_loss, "other subjects in the edit's own words"),
        "given": (limits.near_loss, "the locality probes posted with the edit"),
        "same_subject": (limits.same_subject_loss, "other questions about the edit's subject"),
        "far": (far_fall, "questions far from any edit"),
    }
    for name, (limit, title) in by_group.items():
        if name in groups and groups[name]["n"] >= (FEW_ABOUT_A_SUBJECT if name == "same_subject" else FEW_ANSWERS):
            yield _judge_new(name, groups[name], limit, title)
    totals = {"near": limits.near_loss, "given": limits.near_loss, "far": limits.far_loss + conceded.get("far_total", 0.0)}
    for name, limit in totals.items():
        if name in groups and groups[name]["n"] >= FEW_ANSWERS:
            yield _judge_total(name, groups[name], limit, by_group[name][1])
    if "prose" in groups:
        yield _judge_prose(groups["prose"], limits.prose_divergence + conceded.get("prose", 0.0))


def _judge_new(name: str, group: Mapping[str, Any], limit: float, title: str) -> _Judged:
    """What this publication loses of a group, beyond the noise."""
    lost = max(0.0, group["newly_lost"] - _noise(group))
    sentence = f"{name}: it would change {lost:.0%} of {group['n']} answers to {title}, and may change {limit:.0%}"
    return _Judged(name, lost, limit, sentence)


def _judge_total(name: str, group: Mapping[str, Any], limit: float, title: str) -> _Judged:
    """What all live edits have lost of a group, beyond the noise: many small losses are one large loss."""
    lost = max(0.0, 1.0 - group["kept"] - _noise(group))
    sentence = f"{name}: with it {lost:.0%} of the answers to {title} would differ from the base model's, and {limit:.0%} may"
    return _Judged(f"{name}_total", lost, limit, sentence, is_new=group["newly_lost"] > 0)


def _judge_prose(group: Mapping[str, Any], limit: float) -> _Judged:
    """How far all live edits have moved the distribution of prose, beyond the noise."""
    moved = max(0.0, group["divergence"] - (group["divergence_floor"] or 0.0))
    sentence = f"prose: with it the distribution would be {moved:.2g} nats a token from the base model's, and {limit:.2g} may be"
    return _Judged("prose", moved, limit, sentence, is_new=group["divergence"] > group["parent_divergence"])


def _noise(group: Mapping[str, Any]) -> float:
    """What the base model itself loses of a group in other batch shapes."""
    floor = group.get("floor")
    return 0.0 if floor is None else 1.0 - floor


def _flatten(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", number) for inner, number in _flatten(value))
        elif isinstance(value, float):
            yield name, value
