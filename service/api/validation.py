"""Validation errors as sentences. They name a field, and never its value or a field name that the client invented."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

MOST_FAULTS = 8
SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "has a field that is not known",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entry(ies)",
    "too_long": "must have at most {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_unicode": "must be valid Unicode",
}
UNION_FORM = "form"  # the type of a fault of a union; its message is the rest of a sentence and names all forms
# pydantic's names for the plain branches of a union. Our own branch names are no identifiers.
PLAIN_BRANCHES = ("int", "str", "float", "bool")


class Fault(BaseModel):
    """One field at fault."""

    field: str = Field(description="path of the field, such as `edits[3].prompt`")
    detail: str = Field(description="the fault, as a sentence")


def to_faults(details: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """The first faults of a validation. Faults with one path come from the branches of a union and are joined to one sentence."""
    faults: dict[str, Fault] = {}
    for fault in details:
        path, sentence = _path(fault), _sentence(fault)
        name = path or _place(fault)
        if name in faults:
            if sentence not in faults[name].detail:
                faults[name].detail += f", or {sentence}"
        elif len(faults) < MOST_FAULTS:
            is_about_request = not path and fault["type"] == "value_error"  # the request as a whole is refused
            faults[name] = Fault(field=name, detail=sentence if is_about_request else f"{name} {sentence}")
    return list(faults.values())


def _path(fault: Mapping[str, Any]) -> str:
    """`edits[3].prompt`, without the names of a union's branches and without unknown names, which the client invented."""
    parts = fault["loc"][1:]
    if fault["type"] == "extra_forbidden":
        parts = parts[:-1]
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.islower() and part.isidentifier() and part not in PLAIN_BRANCHES:
            path += f".{part}" if path else part
    return path


def _place(fault: Mapping[str, Any]) -> str:
    location = fault["loc"][0]
    return f"the {location if location in ('query', 'path', 'header') else 'body'}"


def _sentence(fault: Mapping[str, Any]) -> str:
    if fault["type"] == UNION_FORM:
        return str(fault["msg"])
    if fault["type"] == "value_error":  # raised by our own validators, whose messages follow the same rule
        return str(fault["ctx"]["error"])
    template = SENTENCES.get(fault["type"], "is not valid")
    return template.format(**fault.get("ctx", {}))
