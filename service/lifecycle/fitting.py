"""What a fit is given, with its seed, and what its scores are to a version."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from service.domain.edit import Edit, EditRequest
from service.domain.liveset import Carrier, LiveItem, LiveSet
from service.editors.protocol import FitItem, FitResult
from service.lifecycle.context import LifecycleContext
from service.store import edits


def scores_of(fitted: FitResult | None, live_set: LiveSet) -> dict[str, Any]:
    """The scores of a fit as a version keeps them, with the ids of live edits that it does not answer, if there are any."""
    if fitted is None:
        return {}
    lost = sorted(edit_id for edit_id in set(fitted.lost) if (item := live_set.get(edit_id)) is not None and item.is_live)
    scores: dict[str, Any] = dict(fitted.scores)
    if len(lost) < len(set(fitted.lost)):  # some of what was lost was left out, and counts no more
        scores["retention"] = 1.0 - len(lost) / max(1, len(live_set.window) + len(live_set.consolidated_sample))
    return {**scores, **({"lost": lost} if lost else {})}


def seed_of(asked: Iterable[EditRequest], failures: int = 0) -> int:
    """A seed from what a job is asked to learn, in order. A repetition after a crash has the same; one after a failed fit
    another.

    It comes from the contents, not the ids, so that two stores that were told the same make the same bytes.
    """
    digest = hashlib.sha256(str(failures).encode())
    for edit in asked:
        digest.update(hashlib.sha256(edit.prompt.encode()).digest() + hashlib.sha256(edit.target.encode()).digest())
    return int.from_bytes(digest.digest()[:8]) >> 2


def items_of(entries: Sequence[LiveItem], known: Mapping[str, Edit]) -> list[FitItem]:
    """What an editor is given for items of a live set."""
    return [
        FitItem(known[item.edit_id], item.answer or "", is_tombstone=True)
        if item.is_tombstone
        else FitItem(known[item.edit_id], known[item.edit_id].target, is_consolidated=item.carrier is Carrier.TENSORS)
        for item in entries
    ]


def read_fit_edits(context: LifecycleContext, live_set: LiveSet, more: Iterable[str] = ()) -> dict[str, Edit]:
    """What a fit of a live set's window is given, and more, by id. Never the whole of a large live set."""
    given = {item.edit_id for item in (*live_set.window, *live_set.consolidated_sample)}
    with context.store.read() as connection:
        found = edits.read_many(connection, given | set(more))
    return {edit.id: edit for edit in found}
