"""The cadence: when a retrain is due, and how many edits BaFT may still take. Pure."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Cadence:
    """How far the window may grow; all counts are edits."""

    soft: int = 25  # a window this long makes a retrain due
    hard: int = 50  # a window this long takes no more
    deferred: int = 8  # so many deferred edits make a retrain due
    deferred_s: float = 300.0  # seconds a deferred edit waits at most before a retrain is due
    method: Literal["auto", "baft", "locft"] = (
        "auto"  # who carries an edit that names no method; with `baft` a retrain is made on request only
    )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the cadence looks at."""

    window: int  # live edits and tombstones that BaFT carries
    untried: int = 0  # of these, live edits that no retrain has been trained on: the others would be lost again
    deferred: int
    oldest_deferred_s: float = 0.0
    taken_back: bool = False  # the tensors hold something that is not live any more
    retrain_failed: bool = False  # the last retrain failed and nothing it would train on has changed since
    retrain_underway: bool = False  # queued or running


def retrain_reason(standing: Standing, cadence: Cadence) -> str | None:
    """Why a retrain is due by itself, or None."""
    if cadence.method == "baft" or standing.retrain_failed or standing.retrain_underway:
        return None
    if standing.taken_back:
        return "a retracted edit is still in the tensors"
    if standing.untried >= cadence.soft:
        return f"the window holds {standing.untried} edits that are in no tensors yet"
    if standing.deferred >= cadence.deferred:
        return f"{standing.deferred} edits are deferred"
    if standing.deferred and standing.oldest_deferred_s >= cadence.deferred_s:
        return "a deferred edit has waited long enough"
    return None


def room(standing: Standing, cadence: Cadence) -> int:
    """How many edits BaFT may take now."""
    return max(0, cadence.hard - standing.window)


def full_window_defers(standing: Standing, cadence: Cadence) -> bool:
    """What happens to edits that find the window full: they wait for the retrain, or are deferred if none can come."""
    return not standing.retrain_underway and retrain_reason(standing, cadence) is None
