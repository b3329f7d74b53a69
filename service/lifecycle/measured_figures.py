"""Figures of a version, each with a sentence about its measurement."""

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
    """One figure with its score, the number of its questions and its method."""
    return Figure(name=name, score=score, n=n, how=METHODS[name] + more)


def acceptance_figures(scores: Mapping[str, Any], *, item_count: int, canary: int) -> list[Figure]:
    """The figures of a fit: retention over `item_count` items, and locality over a canary of `canary` sentences. Without
    questions there is no figure.
    """
    figures = []
    if item_count and scores.get("retention") is not None:
        figures.append(measured_figure(RETENTION, float(scores["retention"]), item_count, AT_ACCEPTANCE))
    if canary and scores.get("canary") is not None:
        figures.append(measured_figure(OUTSIDE, float(scores["canary"]), canary))
    return figures
