"""The locality of a candidate, without the answers that a live edit may change on purpose."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from service.domain.edit import Edit
from service.editors.protocol import Hooks
from service.lifecycle.context import EditingContext
from service.lm.overlay import Overlay

FIXED = ("far", "prose")  # the groups that every version is asked
NEAR_EDITS = 8  # live edits whose surroundings are asked where no edit is new


def kept_of(scores: Mapping[str, Any], group: str) -> float | None:
    """The share of a group that a version with these scores keeps; None if it was not measured."""
    measured = (scores.get("locality") or {}).get(group)
    return None if measured is None else float(measured["kept"])


def measure_locality(
    context: EditingContext, overlay: Overlay, parent: Overlay, new: Sequence[Edit], live_ids: Collection[str], hooks: Hooks
) -> dict[str, Any]:
    """The groups of a candidate with `new` edits on top of `parent`, whose live edits will be `live_ids`. Empty where nothing is
    asked. Raises FitCancelled if `hooks` say so.
    """
    locality = context.editors.locality
    if locality is None:
        return {}
    hooks.progress(1.0, "asking what else has changed")
    edited = context.edited_subjects.find(context.store, locality.subjects, live_ids)
    return locality.measure(overlay, parent, new, edited, hooks)
