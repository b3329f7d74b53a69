"""Helpers of the tests of LocFT-BF: edits of the taught model, a retrain of them, and the check of an answer."""

from typing import Any

from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lm.overlay import EMPTY, Overlay
from service.lm.prompts import encode_row
from service.lm.scoring import greedy_matches
from tests.editors.taught_model import FACTS, item, neutral, taught_base, view_of

EDITS = [item(prompt, target) for prompt, target in zip(FACTS, "ZYXWVUTS", strict=True)]


def fit(
    items: list[FitItem],
    *,
    seed: int = 1,
    hooks: Hooks | None = None,
    start: Overlay = EMPTY,
    prompts: tuple[str, ...] = (),
    **changes: Any,
) -> FitResult:
    """A retrain of the taught base, with small batches, and a block and a rate that suit it (`late` is the last of its four)."""
    place = {} if {"block", "blocks", "kind"} & changes.keys() else {"position": "published"}
    small = {
        **place,
        "learning_rate": 2e-2,
        "batch": 4,
        "preserve_rows": 4,
        "preserve_pool": 8,
        "wordings": 0,
        "preserve_questions": 0,
    }
    chosen = LocftSettings(**{**small, **changes})
    return fit_locft(
        taught_base(), items, settings=chosen, neutral=neutral(), seed=seed, hooks=hooks, start=start, prompts=prompts
    )


def says(overlay: Overlay, prompt: str, target: str) -> bool:
    """Whether the taught base under an overlay answers a prompt with the target."""
    (answer,) = greedy_matches(view_of(overlay), [encode_row(taught_base(), prompt, target)], None)
    return answer
