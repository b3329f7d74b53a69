"""Live edits that were accepted anyway, and a retrain that is refused. They must keep no other edit waiting for ever.

What acceptance refused of such an edit in the window it may refuse of the edit in the tensors too, and more of it. So the retrain
is tried once more with these edits kept out of its snapshot: as all that is live beyond a snapshot, they stay in the window, by
BaFT on top of the new tensors. Then what the tensors alone cost is judged, and what the window costs, which was conceded before,
is not.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from service.domain import acceptance
from service.domain.acceptance import Decision
from service.domain.liveset import LiveItem, LiveSet
from service.lifecycle.context import EditingContext
from service.lifecycle.head_snapshot import HeadSnapshot
from service.lifecycle.retrain.snapshots import RetrainPlan
from service.store import edits


def find_forced(context: EditingContext, items: Sequence[LiveItem]) -> list[str]:
    """The ids of the items that were accepted anyway, in the order of the items."""
    with context.store.read() as connection:
        forced = edits.find_accepted_anyway(connection, [item.edit_id for item in items])
    return [item.edit_id for item in items if item.edit_id in forced]


def choose_to_keep_out(context: EditingContext, plan: RetrainPlan, head: HeadSnapshot, window: LiveSet) -> tuple[str, ...]:
    """The live edits that a refused retrain may keep out of its snapshot: those accepted anyway that the tensors would take in,
    the newest ones if the new `window` has no room for all.
    """
    start = {item.edit_id for item in plan.start_set.in_tensors}
    entering = [item for item in plan.items if item.edit_id in head.live_set.ids and item.edit_id not in start]
    room = max(0, context.settings.cadence.hard - len(window.window))
    return tuple(find_forced(context, entering)[-room:] if room else ())


def is_refused_for_the_window(
    context: EditingContext,
    decision: Decision,
    head: HeadSnapshot,
    tensor_scores: Mapping[str, Any],
    window: LiveSet,
    newcomers: Collection[str],
) -> bool:
    """Whether a retrain is refused for the locality that a window with edits accepted anyway costs, and its tensors alone would
    be accepted. No newcomer may be in that window: it would be published unjudged.
    """
    if not decision.is_about_locality or any(item.edit_id in newcomers for item in window.window):
        return False
    if not find_forced(context, [item for item in window.window if item.is_live]):
        return False
    parent, limits = head.version.scores, context.settings.acceptance
    return acceptance.judge_scores(tensor_scores, parent, edits=len(newcomers), limits=limits, retrain=True).is_accepted
