"""Figures of a version as they are kept, with the words that say how each was found."""

from collections.abc import Mapping
from typing import Any

from service.store.measurements import CAPABILITY, INSIDE, OUTSIDE, RETENTION, Figure

HOW = {
    RETENTION: "share of live edits whose whole greedy answer is the target on every surface",
    INSIDE: "share of neutral sentences that fits may use, continued greedily as the base model does",
    OUTSIDE: "share of the canary, which no fit sees, continued greedily as the base model does",
    CAPABILITY: "share of the capability tasks solved, over the base model's share",
}
BEFORE = ", asked before the publication: of what the fit was given"


def figure(name: str, score: float, n: int, more: str = "") -> Figure:
    """One figure under its name."""
    return Figure(name=name, score=score, n=n, how=HOW[name] + more)


def acceptance_figures(scores: Mapping[str, Any], *, asked: int, canary: int) -> list[Figure]:
    """What a fit's scores say of `asked` items and of a canary of so many sentences; nothing about what nobody asked."""
    found = []
    if asked and scores.get("retention") is not None:
        found.append(figure(RETENTION, float(scores["retention"]), asked, BEFORE))
    if canary and scores.get("canary") is not None:
        found.append(figure(OUTSIDE, float(scores["canary"]), canary))
    return found
