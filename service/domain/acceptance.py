"""Acceptance: the decision whether measured scores allow the publication of a version. Pure: it measures nothing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    """Whether a candidate may be published. `reasons` are sentences with figures that say why not."""

    is_accepted: bool
    reasons: tuple[str, ...] = ()


def judge_losses(lost: int, live: int, limits: AcceptanceLimits) -> Decision:
    """Judge a retrain that would lose `lost` of the `live` edits that are answered now."""
    if lost <= max(1, int(limits.retrain_losses * live)):
        return Decision(True)
    return Decision(False, (f"{lost} of {live} edits that are answered now would be lost",))


def judge_scores(
    scores: Mapping[str, Any], parent: Mapping[str, Any], *, edits: int, limits: AcceptanceLimits, retrain: bool = False
) -> Decision:
    """Judge a candidate that makes `edits` more edits live, by its scores and its parent's.

    Each edit may cost `canary_fall` of locality, so a joint batch may cost as much as its edits would one by one. The floor holds
    for the sum. A retrain moves edits that are live already; the move alone may cost `retrain_fall`. A score that was not
    measured is not judged. A score that is not finite is never accepted.
    """
    reasons = [
        f"the score {name} is not finite"
        for name, value in scores.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    canary = scores.get("canary")
    if canary is not None and not reasons:
        before = parent.get("canary")
        before = 1.0 if before is None else before
        fall = before - canary
        allowed = max(limits.canary_fall * max(1, edits), limits.retrain_fall if retrain else 0.0)
        if fall > allowed + 1e-9:
            reasons.append(f"locality on the canary would fall from {before:.3f} to {canary:.3f}, by more than {allowed:.3g}")
        if canary < limits.canary_floor and fall > 0:
            reasons.append(f"locality on the canary would be {canary:.3f}, under the floor of {limits.canary_floor}")
    return Decision(not reasons, tuple(reasons))
