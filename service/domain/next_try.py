"""When a deferred edit is tried next, by the rules of the cadence. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from service.domain.cadence import Cadence, CadenceInputs, new_edits_needed, pause_left_s, retrain_wait_s

When = Literal["under_way", "after_retrain", "on_request", "after_edits", "due", "by_time"]
FAR_S = 1e9  # beyond some 30 years no moment is named


@dataclass(frozen=True)
class NextTry:
    """The next try of a deferred edit. `at` is the latest moment at which a retrain is due by itself, for `by_time`. `edits` is
    how many more edits make one due, where that is known. `sentence` says it in words.
    """

    when: When
    sentence: str
    at: datetime | None = None
    edits: int | None = None


def find_next_try(inputs: CadenceInputs, cadence: Cadence, *, now: datetime, is_left_out: bool = False) -> NextTry:
    """When the next retrain tries a deferred edit. `is_left_out`: the retrain that runs now began without it."""
    if inputs.is_retrain_active:
        return _left_out() if is_left_out else NextTry("under_way", "the retrain that is queued or running tries it")
    if not cadence.automatic:
        return NextTry("on_request", "no retrain comes by itself here: the next one that is requested tries it")
    wait_s = retrain_wait_s(inputs, cadence)
    if wait_s is None:
        return _after_edits(new_edits_needed(inputs))
    return _by_time(inputs, cadence, wait_s, now) if wait_s > 0.0 else NextTry("due", "a retrain is due and tries it")


def _left_out() -> NextTry:
    return NextTry("after_retrain", "the retrain that is running began without it: a later one tries it")


def _after_edits(needed: int) -> NextTry:
    sentence = f"the last retrain was cancelled: none follows by itself before {_counted(needed)} posted"
    return NextTry("after_edits", sentence, edits=needed)


def _by_time(inputs: CadenceInputs, cadence: Cadence, wait_s: float, now: datetime) -> NextTry:
    """A retrain that is due at a moment at the latest. No edits shorten the pause after retrains that published nothing."""
    at = None if wait_s > FAR_S else now + timedelta(seconds=wait_s)
    moment = "in more than 30 years" if at is None else f"at {at.isoformat(timespec='seconds')}"
    if pause_left_s(inputs, cadence) > 0.0:
        return NextTry("by_time", f"a retrain is due {moment}: retrains before it that published nothing: {inputs.setbacks}", at)
    more = max(1, cadence.deferred - inputs.deferred)
    return NextTry("by_time", f"a retrain is due {moment} at the latest, sooner if {_counted(more)} deferred", at, more)


def _counted(edits: int) -> str:
    return "one more edit is" if edits == 1 else f"{edits} more edits are"
