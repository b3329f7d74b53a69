"""The probes of an edit: asked after its publication, for the scores in its report."""

from service.lifecycle.context import EditingContext
from service.store import edits


def score_next_edit(context: EditingContext) -> bool:
    """Score the next edit that is due on the head, giving way to answers and fits; whether an edit was due."""
    with context.store.read() as connection:
        edit = edits.find_next_to_score(connection)
    if edit is None:
        return False
    scores = context.editors.score(context.follower.current.overlay, edit, context.yield_to_edits)
    with context.store.write() as connection:
        edits.write_scores(connection, edit.id, scores)
    return True
