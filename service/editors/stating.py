"""Edits as a version states them in front of prompts: each with a scope of its own, by the names of what it is about.

Every process that answers makes them from the rows of the edits. So they may depend on nothing that such a process may lack, such
as the neutral sentences, whose words weigh in the scope of an adapter.
"""

from collections.abc import Iterable

from service.domain.edit import Edit
from service.editors.edit_scope import make_scope_alone
from service.editors.known_names import KnownNames
from service.lm.base import Base
from service.lm.stated_edits import StatedEdit, make_statement


def state_edits(base: Base, edits: Iterable[Edit], names: KnownNames) -> tuple[StatedEdit, ...]:
    """The edits in their order, each with what is said of it and where. `names` are those that an edit without a subject is told
    by.
    """
    return tuple(
        StatedEdit(edit.id, make_statement(edit.prompt, edit.target), make_scope_alone(base, edit, names=names), edit.surfaces)
        for edit in edits
    )
