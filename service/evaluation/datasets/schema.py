"""Schemas: a name, the fields that identify the schema, and a reader from a row to records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.evaluation.datasets.fields import Fields
from service.evaluation.records import Record


@dataclass(frozen=True)
class Schema:
    """`read` takes a row and its number (from 0) and returns its records, at least one, or raises BadRow."""

    name: str
    is_match: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Fields, int], list[Record]]


def has_fields(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    """A test whether a row has all these fields."""
    return lambda row: all(name in row for name in names)
