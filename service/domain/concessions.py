"""What a version records where its edits were accepted anyway: the refusal that was overruled, and what it has cost. Pure."""

from collections.abc import Mapping
from typing import Any

from service.domain.acceptance import Decision


def with_concessions(scores: Mapping[str, Any], parent: Mapping[str, Any], overruled: Decision | None) -> dict[str, Any]:
    """The scores of a version on top of `parent`'s, with `accepted` and `refused` if a refusal was overruled for it.

    `conceded` maps a figure to the falls of all overruled refusals up to this version. It never exceeds what the version has lost
    in all: a version that reads 1 again, after a retraction or a retrain, has conceded nothing.
    """
    recorded = {name: value for name, value in scores.items() if name != "conceded"}
    if overruled is not None:
        figures = {name: dict(figure) for name, figure in overruled.figures.items()}
        recorded |= {"accepted": "anyway", "refused": {"reasons": list(overruled.reasons), "figures": figures}}
    falls = {} if overruled is None else _falls(overruled)
    earlier = parent.get("conceded", {})
    sums = {name: earlier.get(name, 0.0) + falls.get(name, 0.0) for name in sorted({*earlier, *falls})}
    conceded = {name: min(total, 1.0 - (scores.get(name) or 0.0)) for name, total in sums.items()}
    kept = {name: share for name, share in conceded.items() if share > 0.0}
    return recorded | ({"conceded": kept} if kept else {})


def _falls(overruled: Decision) -> dict[str, float]:
    """By how much each figure falls that is judged against its value before."""
    compared = {name: figure for name, figure in overruled.figures.items() if figure.get("before") is not None}
    return {name: max(0.0, figure["before"] - figure["value"]) for name, figure in compared.items()}
