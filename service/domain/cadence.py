"""The cadence: when a retrain is due, of which kind, and how many edits BaFT may still take. Pure.

A *minor* retrain starts from the head's tensors and moves the window into them. A *major* retrain starts from the base and trains
the whole live set. A bad figure makes a retrain due only if the retrain could have another result than the last one. After a
retrain without a publication the next one has to wait, longer each time, because it may fail again and takes minutes.
"""

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["minor", "major"]
Strategy = Literal["compaction", "realtime", "buffered"]

_ROUNDING = 1e-9
_DOUBLINGS = 64  # far beyond any bound, and the result still fits a float
_NEW_EDITS_AFTER_CANCEL = 4  # with fewer edits since a cancellation, another retrain would be the cancelled one again


@dataclass(frozen=True)
class Cadence:
    """How far the window may grow and how far figures may fall. Counts are edits, shares are between 0 and 1."""

    soft: int = 25  # a window of this length makes a retrain due
    hard: int = 50  # a window of this length takes no more edits
    tokens: int = 32_768  # a window of this cost takes no more edits, because each fit runs all of it
    deferred: int = 8  # this many deferred edits make a retrain due
    deferred_s: float = 300.0  # seconds a deferred edit waits at most before a retrain is due
    automatic: bool = True  # otherwise a retrain is made on request only
    strategy: Strategy = "compaction"
    age_s: float = 21_600.0  # seconds after which the oldest edit of the window makes a retrain due
    retention_floor: float = 0.98  # least share of the live edits that are answered
    locality_fall: float = 0.10  # largest fall of the share of far answers kept, since the last retrain
    capability_floor: float = 0.95  # least capability, as a share of the base model's
    few: int = 4  # with fewer untried edits figures make no retrain due, because it would hardly change them
    minors: int = 4  # minor retrains in a row before a major one
    minor_drift: float = 0.05  # largest fall of that share under tensors of minor retrains, against the last major one
    major_every_s: float = 86_400.0  # seconds after which a major retrain is due, if something changed since the last one
    retry_s: float = 60.0  # seconds to wait after a retrain without publication; doubled with each further one, up to age_s


@dataclass(frozen=True, kw_only=True)
class CadenceInputs:
    """The inputs of the cadence. An unknown figure is None and makes nothing due."""

    window: int  # live edits and tombstones that BaFT carries
    tokens: int = 0  # the sum of the tokens of their single fits
    untried: int = (
        0  # live edits of the window that no retrain was trained on, but those accepted anyway; it would lose the others
    )
    oldest_untried_s: float = 0.0
    deferred: int
    oldest_deferred_s: float = 0.0
    has_retracted_in_tensors: bool = False  # the tensors hold a retracted edit
    setbacks: int = 0  # retrains without a publication in a row, up to the last retrain
    since_setback_s: float = 0.0
    is_last_cancelled: bool = False  # whether the last retrain was cancelled
    new_edits: int = 0  # edits that joined the window or were deferred since the last retrain ended
    is_retrain_active: bool = False  # queued or running
    has_tensors: bool = False  # whether the head has tensors, from which a minor retrain could start
    minors: int = 0  # minor retrains in the tensors since the last major one
    since_major_s: float | None = None
    retention: float | None = None
    retention_at_retrain: float | None = None  # of the tensors alone, measured when they were trained
    locality: float | None = None  # share of the far answers that the head keeps
    locality_at_retrain: float | None = None  # of the tensors alone, measured when they were trained
    locality_at_major: float | None = None  # of the tensors of the last major retrain alone
    capability: float | None = None


@dataclass(frozen=True)
class DueRetrain:
    """A retrain that is due. `reason` is a sentence."""

    mode: Mode
    reason: str


def find_due_retrain(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The retrain that is due without a request, or None."""
    if not cadence.automatic or inputs.is_retrain_active or inputs.since_setback_s < retry_pause_s(inputs.setbacks, cadence):
        return None
    retrain = _due_without_pause(inputs, cadence)
    if retrain is None or not inputs.setbacks:
        return retrain
    return replace(retrain, reason=f"{retrain.reason}; retrains before this one that published nothing: {inputs.setbacks}")


def retry_pause_s(setbacks: int, cadence: Cadence) -> float:
    """Seconds for which no retrain is due after `setbacks` retrains in a row without a publication."""
    if not setbacks:
        return 0.0
    return min(cadence.retry_s * 2.0 ** (min(setbacks, _DOUBLINGS) - 1), max(cadence.retry_s, cadence.age_s))


def _due_without_pause(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The retrain that would be due without a pause after setbacks."""
    if inputs.has_retracted_in_tensors:
        return DueRetrain("major", "a retracted edit is still in the tensors")
    if new_edits_needed(inputs):
        return None
    reason = _reason_to_consolidate(inputs, cadence)
    if reason is not None:
        return DueRetrain(choose_mode(inputs, cadence), reason)
    return _due_by_time(inputs, cadence) or _due_by_figures(inputs, cadence)


def choose_mode(inputs: CadenceInputs, cadence: Cadence) -> Mode:
    """The kind of the next retrain if no request names one: minor, unless there are no tensors or a major one is due."""
    if cadence.strategy != "compaction" or not inputs.has_tensors or inputs.has_retracted_in_tensors:
        return "major"
    if inputs.minors >= cadence.minors or _has_drifted(inputs, cadence):
        return "major"
    return "minor"


def retrain_wait_s(inputs: CadenceInputs, cadence: Cadence) -> float | None:
    """Seconds after which a retrain is due by itself at the latest, since there is a deferred edit. None if time alone makes none
    due: no retrain comes by itself, or the last one was cancelled and there are too few new edits.
    """
    if not cadence.automatic:
        return None
    pause_s = pause_left_s(inputs, cadence)
    if _due_without_pause(inputs, cadence) is not None:
        return pause_s
    if new_edits_needed(inputs):
        return None
    return max(pause_s, cadence.deferred_s - inputs.oldest_deferred_s)


def pause_left_s(inputs: CadenceInputs, cadence: Cadence) -> float:
    """Seconds for which no retrain is due yet, because the ones before published nothing."""
    return max(0.0, retry_pause_s(inputs.setbacks, cadence) - inputs.since_setback_s)


def new_edits_needed(inputs: CadenceInputs) -> int:
    """How many more new edits it takes before a retrain may follow a cancelled one."""
    return max(0, _NEW_EDITS_AFTER_CANCEL - inputs.new_edits) if inputs.is_last_cancelled else 0


def free_window_places(inputs: CadenceInputs, cadence: Cadence) -> int:
    """The number of edits that BaFT may take now."""
    return 0 if _is_full(inputs, cadence) else cadence.hard - inputs.window


def is_full_window_deferring(inputs: CadenceInputs, cadence: Cadence) -> bool:
    """Whether a full window defers new edits. They wait if a retrain is active or due."""
    return not inputs.is_retrain_active and find_due_retrain(inputs, cadence) is None


def _reason_to_consolidate(inputs: CadenceInputs, cadence: Cadence) -> str | None:
    """Why edits outside the tensors should be consolidated now, or None."""
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
    """The major retrain that time makes due. None if it would train the present tensors again."""
    if inputs.since_major_s is None or inputs.since_major_s < cadence.major_every_s:
        return None
    return DueRetrain("major", "the last major retrain is long enough ago") if inputs.minors or inputs.untried else None


def _due_by_figures(inputs: CadenceInputs, cadence: Cadence) -> DueRetrain | None:
    """The retrain that figures make due. First the window goes into the tensors, then a major retrain replaces minor ones.

    After a major retrain without new edits another one would have the same result, so none is due.
    """
    has_new_edits = inputs.untried >= cadence.few
    if not has_new_edits and not inputs.minors:
        return None
    reason = _reason_in_figures(inputs, cadence)
    if reason is None:
        return None
    return DueRetrain(choose_mode(inputs, cadence) if has_new_edits else "major", reason)


def _reason_in_figures(inputs: CadenceInputs, cadence: Cadence) -> str | None:
    retention_at_retrain = 1.0 if inputs.retention_at_retrain is None else inputs.retention_at_retrain
    if _is_under(inputs.retention, min(cadence.retention_floor, retention_at_retrain)):
        return f"the head answers {inputs.retention:.3f} of its live edits, under {cadence.retention_floor}"
    if _has_fallen(inputs.locality, inputs.locality_at_retrain, cadence.locality_fall):
        return (
            f"the share of far answers kept has fallen from {inputs.locality_at_retrain:.3f} to {inputs.locality:.3f}"
            f" since the last retrain, by {cadence.locality_fall} or more"
        )
    if _is_under(inputs.capability, cadence.capability_floor):
        return f"capability is {inputs.capability:.3f} of the base model's, under {cadence.capability_floor}"
    if not inputs.untried and _has_drifted(inputs, cadence):
        return (
            f"minor retrains have cost {cadence.minor_drift} or more of the far answers:"
            f" from {inputs.locality_at_major:.3f} to {inputs.locality_at_retrain:.3f}"
        )
    return None


def _has_drifted(inputs: CadenceInputs, cadence: Cadence) -> bool:
    return inputs.minors > 0 and _has_fallen(inputs.locality_at_retrain, inputs.locality_at_major, cadence.minor_drift)


def _is_under(figure: float | None, floor: float) -> bool:
    return figure is not None and figure < floor - _ROUNDING


def _has_fallen(figure: float | None, before: float | None, by: float) -> bool:
    return figure is not None and before is not None and before - figure >= by - _ROUNDING
