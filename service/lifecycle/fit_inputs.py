"""The input of a fit, its seed, and the scores that a version records."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from service.domain.edit import Edit, EditRequest
from service.domain.liveset import Carrier, LiveItem, LiveSet
from service.editors.protocol import FitItem, FitResult
from service.lifecycle.context import LifecycleContext
from service.store import edits


def scores_of(fitted: FitResult | None, live_set: LiveSet) -> dict[str, Any]:
    """The scores of a fit for its version, with the ids of live edits that it does not answer, if there are any."""
    if fitted is None:
        return {}
    lost = sorted(edit_id for edit_id in set(fitted.lost) if (item := live_set.get(edit_id)) is not None and item.is_live)
    scores: dict[str, Any] = dict(fitted.scores)
    if len(lost) < len(set(fitted.lost)):  # lost edits that left the live set do not count
        scores["retention"] = 1.0 - len(lost) / max(1, len(live_set.window) + len(live_set.consolidated_sample))
    return {**scores, **({"lost": lost} if lost else {})}


def seed_of(asked: Iterable[EditRequest], failures: int = 0) -> int:
    """A seed from the edits that a job trains, in order, and the number of its failed fits: a repetition after a crash has the
    same seed, one after a failed fit another.

    The seed depends on prompts and targets and not on ids, so that two stores with the same edits make the same bytes.
    """
    digest = hashlib.sha256(str(failures).encode())
    for edit in asked:
        digest.update(hashlib.sha256(edit.prompt.encode()).digest() + hashlib.sha256(edit.target.encode()).digest())
    return int.from_bytes(digest.digest()[:8]) >> 2


def items_of(entries: Sequence[LiveItem], known: Mapping[str, Edit]) -> list[FitItem]:
    """The editor's items for items of a live set."""
    return [
        FitItem(known[item.edit_id], item.answer or "", is_tombstone=True)
        if item.is_tombstone
        else FitItem(known[item.edit_id], known[item.edit_id].target, is_consolidated=item.carrier is Carrier.TENSORS)
        for item in entries
    ]


def read_fit_edits(context: LifecycleContext, live_set: LiveSet, extra_ids: Iterable[str] = ()) -> dict[str, Edit]:
    """The edits that a fit of a live set's window needs, and `extra_ids`, by id. Never the whole of a large live set."""
    ids = {item.edit_id for item in (*live_set.window, *live_set.consolidated_sample)}
    with context.store.read() as connection:
        rows = edits.read_many(connection, ids | set(extra_ids))
    return {edit.id: edit for edit in rows}
