"""The names of the editing methods as types of fields, so that settings, requests and their descriptions list them."""

from typing import TYPE_CHECKING, Literal

from service.domain.edit import AUTO
from service.editors.registry import list_methods, names_of

if TYPE_CHECKING:
    MethodName = str
    IncrementalName = str
    ConsolidatingName = str
else:
    MethodName = Literal[(AUTO, *list_methods())]
    IncrementalName = Literal[names_of("incremental")]
    ConsolidatingName = Literal[names_of("consolidating")]
