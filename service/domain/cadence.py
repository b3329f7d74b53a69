"""The cadence: when a retrain is due, of which kind, and how many edits BaFT may still take. Pure.

A *minor* retrain starts from the head's tensors and moves the window into them; a *major* one starts from the base over the whole
live set. What is measured to be bad makes a retrain due only if it could come to something else than the last one did. After one
that published nothing the next has to wait, longer each time: what failed may come to the same again, and takes minutes.
"""

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["minor", "major"]
Strategy = Literal["compaction", "realtime", "buffered"]

_ROUNDING = 1e-9
_DOUBLINGS = 64  # far beyond any bound, and a float still holds it
_NEW_EDITS_AFTER_CANCEL = 4  # with fewer edits since somebody cancelled a retrain, another would be the one that was not wanted


@dataclass(frozen=True)
class Cadence:
    """How far the window may grow and how far figures may fall; all counts are edits, all shares are of one."""

    soft: int = 25  # a window this long makes a retrain due
    hard: int = 50  # a window this long takes no more
    tokens: int = 32_768  # nor does one that costs so much: each fit runs all of it
    deferred: int = 8  # so many deferred edits make a retrain due
    deferred_s: float = 300.0  # seconds a deferred edit waits at most before a retrain is due
    method: Literal["auto", "baft", "locft"] = (
        "auto"  # who carries an edit that names no method; with `baft` a retrain is made on request only
    )
    strategy: Strategy = "compaction"
    age_s: float = 21_600.0  # seconds after which the oldest edit of the window makes a retrain due
    retention_floor: float = 0.98  # least share of the live edits answered
    locality_fall: float = 0.10  # largest fall of the canary since the last retrain
    capability_floor: float = 0.95  # least capability, as a share of the base model's
    few: int = 4  # with fewer untried edits no retrain is due for the sake of figures: it would hardly change them
    minors: int = 4  # minor retrains in a row before a major one
    minor_drift: float = 0.05  # largest fall of the canary under tensors of minor retrains, against the last major one
    major_every_s: float = 86_400.0  # seconds after which a major retrain is due if there was anything since the last
    retry_s: float = 60.0  # seconds after a retrain that published nothing; doubled with each further one, up to age_s


@dataclass(frozen=True, kw_only=True)
class CadenceInputs:
    """What the cadence looks at. Figures that are not known are None, and make nothing due."""

    window: int  # live edits and tombstones that BaFT carries
    tokens: int = 0  # what fits of these, each alone, are given
    untried: int = 0  # of these, live edits that no retrain has been trained on: the others would be lost again
    oldest_untried_s: float = 0.0
    deferred: int
    oldest_deferred_s: float = 0.0
    has_retracted_in_tensors: bool = False  # the tensors hold something that is not live any more
    setbacks: int = 0  # retrains in a row, up to the last one, that ended without a publication
    since_setback_s: float = 0.0
    is_last_cancelled: bool = False  # the last one was
    new_edits: int = 0  # edits that came to the window or were deferred since then
    is_retrain_active: bool = False  # queued or running
    has_tensors: bool = False  # whether the head has any, from which a minor retrain could start
    minors: int = 0  # minor retrains in them since the last major one
    since_major_s: float | None = None
    retention: float | None = None
    retention_at_retrain: float | None = None  # of the tensors alone, when they were trained
    locality: float | None = None  # of the head on the canary
    locality_at_retrain: float | None = None  # of the tensors alone, when they were trained
    locality_at_major: float | None = None  # of the tensors of the last major retrain alone
    capability: float | None = None


@dataclass(frozen=True)
class DueRetrain:
    """A retrain that is due, and why, in a sentence."""

    mode: Mode
    reason: str


def find_due_retrain(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The retrain that is due by itself, or None."""
    if cadence.method == "baft" or inputs.is_retrain_active or inputs.since_setback_s < retry_pause_s(inputs.setbacks, cadence):
        return None
    found = _due_without_pause(inputs, cadence)
    if found is None or not inputs.setbacks:
        return found
    return replace(found, reason=f"{found.reason}; retrains before this one that published nothing: {inputs.setbacks}")


def retry_pause_s(setbacks: int, cadence: Cadence) -> float:
    """How long after the last of so many retrains in a row that published nothing none is made by itself, in seconds."""
    if not setbacks:
        return 0.0
    return min(cadence.retry_s * 2.0 ** (min(setbacks, _DOUBLINGS) - 1), max(cadence.retry_s, cadence.age_s))


def _due_without_pause(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The retrain that would be due if there were nothing to wait for."""
    if inputs.has_retracted_in_tensors:
        return DueRetrain("major", "a retracted edit is still in the tensors")
    if inputs.is_last_cancelled and inputs.new_edits < _NEW_EDITS_AFTER_CANCEL:
        return None
    reason = _reason_to_consolidate(inputs, cadence)
    if reason is not None:
        return DueRetrain(choose_mode(inputs, cadence), reason)
    return _due_by_time(inputs, cadence) or _due_by_figures(inputs, cadence)


def choose_mode(inputs: CadenceInputs, cadence: Cadence) -> Mode:
    """Which kind the next retrain should be, if nobody says: minor, unless it has nothing to start from or it is time for a
    major one.
    """
    if cadence.strategy != "compaction" or not inputs.has_tensors or inputs.has_retracted_in_tensors:
        return "major"
    if inputs.minors >= cadence.minors or _has_drifted(inputs, cadence):
        return "major"
    return "minor"


def free_window_places(inputs: CadenceInputs, cadence: Cadence) -> int:
    """How many edits BaFT may take now."""
    return 0 if _is_full(inputs, cadence) else cadence.hard - inputs.window


def is_full_window_deferring(inputs: CadenceInputs, cadence: Cadence) -> bool:
    """What happens to edits that find the window full: they wait for the retrain, or are deferred if none can come."""
    return not inputs.is_retrain_active and find_due_retrain(inputs, cadence) is None


def _reason_to_consolidate(inputs: CadenceInputs, cadence: Cadence) -> str | None:
    """Why edits that are in no tensors should not wait any longer."""
    if inputs.untried >= cadence.soft:
        return f"the window holds {inputs.untried} edits that are in no tensors yet"
    if inputs.untried and _is_full(inputs, cadence):
        return "the window is full"
    if inputs.deferred >= cadence.deferred:
        return "an edit is deferred" if inputs.deferred == 1 else f"{inputs.deferred} edits are deferred"
    if inputs.deferred and inputs.oldest_deferred_s >= cadence.deferred_s:
        return "a deferred edit has waited long enough"
    if inputs.untried and inputs.oldest_untried_s >= cadence.age_s:
        return "an edit has been in the window long enough"
    return None


def _is_full(inputs: CadenceInputs, cadence: Cadence) -> bool:
    return inputs.window >= cadence.hard or inputs.tokens >= cadence.tokens


def _due_by_time(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The major retrain that time makes due; not if it would come to the tensors that are there."""
    if inputs.since_major_s is None or inputs.since_major_s < cadence.major_every_s:
        return None
    return DueRetrain("major", "the last major retrain is long enough ago") if inputs.minors or inputs.untried else None


def _due_by_figures(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The retrain that figures make due: first the window goes into the tensors, then minor ones give way to a major one.

    After a major one with nothing new, another would come to the same: then the figures stand as they are.
    """
    news = inputs.untried >= cadence.few
    if not news and not inputs.minors:
        return None
    reason = _reason_in_figures(inputs, cadence)
    if reason is None:
        return None
    return DueRetrain(choose_mode(inputs, cadence) if news else "major", reason)


def _reason_in_figures(inputs: CadenceInputs, cadence: Cadence) -> str | None:
    then = 1.0 if inputs.retention_at_retrain is None else inputs.retention_at_retrain
    if _is_under(inputs.retention, min(cadence.retention_floor, then)):
        return f"the head answers {inputs.retention:.3f} of its live edits, under {cadence.retention_floor}"
    if _has_fallen(inputs.locality, inputs.locality_at_retrain, cadence.locality_fall):
        return (
            f"locality on the canary has fallen from {inputs.locality_at_retrain:.3f} to {inputs.locality:.3f}"
            f" since the last retrain, by {cadence.locality_fall} or more"
        )
    if _is_under(inputs.capability, cadence.capability_floor):
        return f"capability is {inputs.capability:.3f} of the base model's, under {cadence.capability_floor}"
    if not inputs.untried and _has_drifted(inputs, cadence):
        return (
            f"minor retrains have cost the canary {cadence.minor_drift} or more:"
            f" from {inputs.locality_at_major:.3f} to {inputs.locality_at_retrain:.3f}"
        )
    return None


def _has_drifted(inputs: CadenceInputs, cadence: Cadence) -> bool:
    return inputs.minors > 0 and _has_fallen(inputs.locality_at_retrain, inputs.locality_at_major, cadence.minor_drift)


def _is_under(figure: float | None, floor: float) -> bool:
    return figure is not None and figure < floor - _ROUNDING


def _has_fallen(figure: float | None, before: float | None, by: float) -> bool:
    return figure is not None and before is not None and before - figure >= by - _ROUNDING
