"""Which consolidated edits a fit of the window keeps and asks: a sample, and those whose answers the window could change."""

from collections.abc import Mapping, Sequence

from service.domain.edit import Edit
from service.domain.liveset import LiveSet, sample
from service.editors.protocol import FitItem, IncrementalEditor
from service.lifecycle.context import EditingContext
from service.lifecycle.fit_inputs import items_of
from service.lm.scope import Scope
from service.store import edits

MOST_IN_SCOPE = 512  # beside the sample
MOST_READ = 2_048  # edits whose texts hold the words of the scope


def kept_items(
    context: EditingContext,
    editor: IncrementalEditor,
    live_set: LiveSet,
    carried: Sequence[FitItem],
    known: Mapping[str, Edit],
) -> list[FitItem]:
    """The consolidated items that a fit gets whose overlay will carry the items `carried`. `known` has the edits of the sample.

    An overlay with a scope changes no answer out of it. Where the sample is not all, the edits in scope are added: all, or
    MOST_IN_SCOPE of them. Of an overlay without a scope the sample is all that is asked.
    """
    sampled = items_of(live_set.consolidated_sample, known)
    if len(sampled) == len(live_set.consolidated) or not carried:
        return sampled
    scope = editor.scope_of(carried)
    return sampled if scope is None else [*sampled, *_items_in_scope(context, live_set, scope)]


def _items_in_scope(context: EditingContext, live_set: LiveSet, scope: Scope) -> list[FitItem]:
    """Consolidated items outside the sample whose prompts are in scope. The same edits give the same items."""
    found = context.edit_texts.find(context.store, scope)
    sampled = {item.edit_id for item in live_set.consolidated_sample}
    candidates = [item for item in live_set.consolidated if item.seq in found and item.edit_id not in sampled]
    candidates = list(sample(candidates, MOST_READ))
    with context.store.read() as connection:
        read = {edit.id: edit for edit in edits.read_many(connection, [item.edit_id for item in candidates])}
    inside = [item for item in candidates if scope.covers(read[item.edit_id].prompt)]
    return items_of(sample(inside, MOST_IN_SCOPE), read)
