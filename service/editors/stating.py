"""Edits as a version states them in front of prompts: each with a scope of its own, by the names of what it is about.

Every process that answers makes them from the rows of the edits. So they may depend on nothing that such a process may lack, such
as the neutral sentences, whose words weigh in the scope of an adapter.
"""

import threading
from collections.abc import Iterable
from typing import Any

from service.domain.edit import Edit, normalise
from service.editors.edit_scope import make_scope_alone
from service.editors.known_names import KnownNames
from service.lm.base import Base
from service.lm.stated_edits import StatedEdit, StatedEdits, make_statement

_REMEMBERED = 4  # times the edits of a version: older ones are made again


class Stating:
    """Makes what versions state. An edit that several versions state is made once. Methods may be called from any thread.

    `names` are those that an edit without a subject is told by.
    """

    def __init__(self, base: Base, names: KnownNames) -> None:
        self._base, self._names = base, names
        self._made: dict[Any, StatedEdit] = {}
        self._lock = threading.Lock()

    def state(self, edits: Iterable[Edit]) -> StatedEdits:
        """The edits in their order, each with what is said of it and where."""
        with self._lock:
            made = {(edit.id, edit.rephrases): edit for edit in edits}  # rephrases are added to an edit that waits
            for key, edit in made.items():
                self._made[key] = self._made.pop(key) if key in self._made else self._make(edit)
            for key in list(self._made)[: max(0, len(self._made) - _REMEMBERED * max(1, len(made)))]:
                del self._made[key]
            return StatedEdits(tuple(self._made[key] for key in made))

    def _make(self, edit: Edit) -> StatedEdit:
        scope = make_scope_alone(self._base, edit, names=self._names)
        statement, prompt = make_statement(edit.prompt, edit.target), normalise(edit.prompt).casefold()
        return StatedEdit(edit.id, statement, scope, edit.surfaces, prompt)
