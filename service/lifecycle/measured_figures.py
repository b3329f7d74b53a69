"""Figures of a version, each with a sentence about its measurement."""

from collections.abc import Mapping
from typing import Any

from service.store.measurements import CAPABILITY, FAR, GIVEN, INSIDE, NEAR, PROSE, RETENTION, SAME_SUBJECT, Figure

METHODS = {
    RETENTION: "share of live edits whose whole greedy answer is the target on every surface",
    NEAR: "share of answers to edits' own prompts about other subjects that are the base model's; it is sure of them",
    SAME_SUBJECT: "share of other answers about edits' subjects that are the base model's; it is sure of them",
    GIVEN: "share of answers to the locality probes posted with edits that are the base model's",
    FAR: "share of answers far from any edit that are the base model's; it is sure of them",
    PROSE: "share of tokens of sentences that no fit sees whose likeliest token is the base model's",
    INSIDE: "share of tokens of sentences that fits may use whose likeliest token is the base model's",
    CAPABILITY: "share of the capability tasks solved, over the base model's share",
}
AT_ACCEPTANCE = ", asked before the publication: of what the fit was given"
GROUPS = (NEAR, SAME_SUBJECT, GIVEN, FAR, PROSE)


def measured_figure(name: str, score: float, n: int, more: str = "") -> Figure:
    """One figure with its score, the number of its questions and its method."""
    return Figure(name=name, score=score, n=n, how=METHODS[name] + more)


def locality_figures(groups: Mapping[str, Any]) -> list[Figure]:
    """The figures of the groups of locality, each with its interval and the share that the base keeps of itself."""
    return [
        Figure(
            name=name,
            score=groups[name]["kept"],
            n=groups[name]["n"],
            how=METHODS[name],
            low=groups[name]["interval"][0],
            high=groups[name]["interval"][1],
            floor=groups[name]["floor"],
        )
        for name in GROUPS
        if name in groups
    ]


def acceptance_figures(scores: Mapping[str, Any], *, item_count: int) -> list[Figure]:
    """The figures of a fit: retention over `item_count` items, and the groups of locality. Without questions there is no
    figure.
    """
    figures = locality_figures(scores.get("locality") or {})
    if item_count and scores.get("retention") is not None:
        figures.insert(0, measured_figure(RETENTION, float(scores["retention"]), item_count, AT_ACCEPTANCE))
    return figures
