"""Acceptance: the decision whether measured scores allow the publication of a version. Pure: it measures nothing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AcceptanceLimits:
    """Shares of canary prompts whose whole greedy answer equals the base's."""

    canary_fall: float = 0.05  # largest fall against the parent for each edit that a publication adds
    canary_floor: float = 0.80  # least share against the base
    retrain_fall: float = 0.10  # largest fall that a retrain may cost, if the edits that it makes live do not allow more
    retrain_losses: float = 0.02  # largest share of the live edits (one edit at least) that a retrain may end without


@dataclass(frozen=True)
class Decision:
    """Whether a candidate may be published. `reasons` are sentences with figures that say why not.

    `figures` has each judged figure by name, with its `value` and its `limit`; a figure with a floor also has its value `before`.
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
    """Judge a candidate that makes `edits` more edits live, by its scores and its parent's.

    Each edit may cost `canary_fall` of locality, so a joint batch may cost as much as its edits would one by one. The floor holds
    for the sum. A retrain moves edits that are live already; the move alone may cost `retrain_fall`. A score that was not
    measured is not judged. A score that is not finite is never accepted. What edits accepted anyway have cost (`conceded` of the
    parent's scores) lowers the floor: it is not held against the edits after them.
    """
    broken = [name for name, value in scores.items() if isinstance(value, float) and not math.isfinite(value)]
    if broken:
        sentences = tuple(f"the score {name} is not finite" for name in broken)
        return Decision(False, sentences, {name: {"value": None, "limit": "finite"} for name in broken})
    reasons, figures = [], {}
    canary = scores.get("canary")
    if canary is not None:
        before = parent.get("canary")
        before = 1.0 if before is None else before
        fall = before - canary
        allowed = max(limits.canary_fall * max(1, edits), limits.retrain_fall if retrain else 0.0)
        floor = limits.canary_floor - parent.get("conceded", {}).get("canary", 0.0)
        figures["canary"] = {"value": canary, "limit": max(before - allowed, min(floor, before)), "before": before}
        if fall > allowed + 1e-9:
            reasons.append(f"locality on the canary would fall from {before:.3f} to {canary:.3f}, by more than {allowed:.3g}")
        if canary < floor - 1e-9 and fall > 0:
            reasons.append(f"locality on the canary would be {canary:.3f}, under the floor of {floor:.3g}")
    return Decision(not reasons, tuple(reasons), figures, is_about_locality=True)
