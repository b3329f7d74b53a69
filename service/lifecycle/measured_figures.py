"""Figures of a version as they are kept, with the words that say how each was found."""

from collections.abc import Mapping
from typing import Any

from service.store.measurements import CAPABILITY, INSIDE, OUTSIDE, RETENTION, Figure

METHODS = {
    RETENTION: "share of live edits whose whole greedy answer is the target on every surface",
    INSIDE: "share of neutral sentences that fits may use, continued greedily as the base model does",
    OUTSIDE: "share of the canary, which no fit sees, continued greedily as the base model does",
    CAPABILITY: "share of the capability tasks solved, over the base model's share",
}
AT_ACCEPTANCE = ", asked before the publication: of what the fit was given"


def measured_figure(name: str, score: float, n: int, more: str = "") -> Figure:
    """One figure under its name."""
    return Figure(name=name, score=score, n=n, how=METHODS[name] + more)


def acceptance_figures(scores: Mapping[str, Any], *, asked: int, canary: int) -> list[Figure]:
    """What a fit's scores say of `asked` items and of a canary of so many sentences; nothing about what nobody asked."""
    found = []
    if asked and scores.get("retention") is not None:
        found.append(measured_figure(RETENTION, float(scores["retention"]), asked, AT_ACCEPTANCE))
    if canary and scores.get("canary") is not None:
        found.append(measured_figure(OUTSIDE, float(scores["canary"]), canary))
    return found
