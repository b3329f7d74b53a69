"""What a version records where its edits were accepted anyway: the refusal that was overruled, and what it has cost. Pure."""

from collections.abc import Mapping
from typing import Any

from service.domain.acceptance import Decision, new_losses, total_losses


def with_concessions(scores: Mapping[str, Any], parent: Mapping[str, Any], overruled: Decision | None) -> dict[str, Any]:
    """The scores of a version on top of `parent`'s, with `accepted` and `refused` if a refusal was overruled for it.

    `conceded` maps a total to what all overruled versions up to this one have newly lost of it. It never exceeds what the version
    has lost in all: a version that keeps everything again, after a retraction or a retrain, has conceded nothing.
    """
    recorded = {name: value for name, value in scores.items() if name != "conceded"}
    if overruled is not None:
        figures = {name: dict(figure) for name, figure in overruled.figures.items()}
        recorded |= {"accepted": "anyway", "refused": {"reasons": list(overruled.reasons), "figures": figures}}
    losses = {} if overruled is None else new_losses(scores)
    earlier, lost = parent.get("conceded", {}), total_losses(scores)
    sums = {name: earlier.get(name, 0.0) + losses.get(name, 0.0) for name in sorted({*earlier, *losses})}
    conceded = {name: min(total, lost.get(name, total)) for name, total in sums.items()}
    kept = {name: loss for name, loss in conceded.items() if loss > 0.0}
    return recorded | ({"conceded": kept} if kept else {})
