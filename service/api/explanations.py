"""Which live edits were in scope of a prompt, as the version that answered it has them."""

from service.api.schemas.generate import MOST_EXPLAINED, ExplanationOut
from service.api.state import ServerState
from service.editors.edits_in_scope import find_edits_in_scope
from service.lm.scoped_rows import acts_on
from service.lm.stated_edits import StatedPrompt
from service.serving.residents import Resident
from service.store import edits, versions


def explain(server: ServerState, resident: Resident, prompt: StatedPrompt) -> ExplanationOut:
    """Whether the adapter of a version acts on a prompt, for which of its live edits, and which edits were stated in front of it.
    Raises Unavailable without database.
    """
    adapter, stated = resident.adapter, list(prompt.edit_ids[::-1])
    if adapter is None or not acts_on(server.base, adapter, prompt.asked_ids):
        return ExplanationOut(acted=False, in_scope=[], count=0, stated=stated)
    with server.store.read() as connection:
        carried = versions.read_live_set(connection, resident.version).window
        live = edits.read_many(connection, [item.edit_id for item in carried if item.is_live])
    found = [edit.id for edit in find_edits_in_scope(server.base, adapter, prompt.asked_ids, live, server.names)]
    return ExplanationOut(acted=True, in_scope=found[: -MOST_EXPLAINED - 1 : -1], count=len(found), stated=stated)
