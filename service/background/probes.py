"""Asking an edit's probes after its publication, and putting what they answer into its report."""

from service.lifecycle.context import LifecycleContext
from service.store import edits


def score_next_edit(context: LifecycleContext) -> bool:
    """Score one edit on the version that answers now, after whatever somebody waits for; whether one was due."""
    with context.store.read() as connection:
        edit = edits.find_next_to_score(connection)
    if edit is None:
        return False
    scores = context.editors.score(context.follower.current.overlay, edit, context.yield_to_edits)
    with context.store.write() as connection:
        edits.write_scores(connection, edit.id, scores)
    return True
