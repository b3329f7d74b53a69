"""The kinds of components by name, each with the place of its class. The class is imported when it is first needed: registering
loads no torch.
"""

import importlib
import re
from typing import TYPE_CHECKING

from service.domain.errors import Refused, Unreadable

if TYPE_CHECKING:
    from service.lm.components import Component

_NAME = re.compile(r"[a-z][a-z0-9_]{0,15}")
_places: dict[str, str] = {}


def register_component(kind: str, place: str) -> None:
    """Register the class of a kind of components. `place` is `package.module:Class`. Raises Refused if the name is taken."""
    if not _NAME.fullmatch(kind):
        raise Refused("The name of a kind of components must have 1 to 16 lower-case letters, digits and underscores.")
    if _places.setdefault(kind, place) != place:
        raise Refused(f"Two methods register the kind of components {kind}.")


def find_component(kind: str) -> "type[Component]":
    """The class of a kind. Raises Unreadable if none is registered."""
    if kind not in _places:
        named = f"of the kind {kind}" if _NAME.fullmatch(kind) else "of a kind"
        raise Unreadable(
            f"A checkpoint holds components {named} that no installed method knows: install the method that made it."
        )
    module, _, name = _places[kind].partition(":")
    found: type[Component] = getattr(importlib.import_module(module), name)
    return found
