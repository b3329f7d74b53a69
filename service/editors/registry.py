"""The editing methods by name. A method registers itself: by its folder here, or by an entry point of another package.

A folder of this package with a file `method.py` is a method, and so is an entry point of the group `errata.methods`. Each gives a
`METHOD`. What a method needs of torch is imported when its editor is opened.
"""

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

import service.editors
from service.domain.edit import AUTO
from service.domain.errors import Refused
from service.domain.version import OPERATIONS
from service.editors.presets import WithPresets
from service.lm.component_kinds import register_component

ENTRY_POINTS = "errata.methods"
DEFAULT_INCREMENTAL = "baft"
DEFAULT_CONSOLIDATING = "locft"
NAME = re.compile(r"[a-z][a-z0-9_]{0,15}")  # the database checks the same pattern
MethodRole = Literal["incremental", "consolidating"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One editing method.

    An *incremental* method makes edits live at once: its editor is an `IncrementalEditor`. A *consolidating* method trains all
    live edits together: its editor is a `ConsolidatingEditor`. `editor` is the place `package.module:function` of what opens the
    editor, by an `EditorContext` and the settings. `settings` becomes the group of the server's settings with the method's
    name. `components` maps the kinds of components that the method puts into overlays to the places of their classes.
    """

    name: str
    title: str
    role: MethodRole
    settings: type[WithPresets]
    editor: str
    components: Mapping[str, str] = field(default_factory=dict)

    def open_editor(self, *arguments: Any) -> Any:
        """The editor of this method. Raises Refused if the base model cannot be edited in this way."""
        module, _, function = self.editor.partition(":")
        return getattr(importlib.import_module(module), function)(*arguments)


@cache
def list_methods() -> Mapping[str, Method]:
    """All methods by name, in the order of their names. Raises Refused if one has no proper name, or two have the same."""
    methods: dict[str, Method] = {}
    for method in sorted(_find_methods(), key=lambda found: found.name):
        if not NAME.fullmatch(method.name) or method.name in (AUTO, *OPERATIONS):
            raise Refused(f"An editing method cannot have the name {method.name!r}.")
        if method.name in methods:
            raise Refused(f"Two editing methods have the name {method.name}: uninstall one of them.")
        methods[method.name] = method
        for kind, place in method.components.items():
            register_component(kind, place)
    return methods


def find_method(name: str) -> Method:
    """The method of a name. Raises Refused with the field `method` if there is none."""
    method = list_methods().get(name)
    if method is None:
        raise Refused(f"method must be one of {', '.join((AUTO, *list_methods()))}", field="method")
    return method


def find_method_of(settings: type[WithPresets]) -> Method:
    """The method whose settings are of this class."""
    (method,) = (method for method in list_methods().values() if method.settings is settings)
    return method


def names_of(role: MethodRole) -> tuple[str, ...]:
    """The names of the methods of a role."""
    return tuple(name for name, method in list_methods().items() if method.role == role)


def is_consolidating(name: str) -> bool:
    """Whether a name is that of a consolidating method. False for `auto`, and for a method that is not installed."""
    return name in names_of("consolidating")


def _find_methods() -> Iterator[Method]:
    for module in pkgutil.iter_modules(service.editors.__path__, "service.editors."):
        if module.ispkg and importlib.util.find_spec(f"{module.name}.method") is not None:
            yield importlib.import_module(f"{module.name}.method").METHOD
    for entry_point in entry_points(group=ENTRY_POINTS):
        yield entry_point.load()
