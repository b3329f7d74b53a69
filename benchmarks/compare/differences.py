"""Differences of two texts, or of two values of JSON."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

NOTHING = "nothing"


@dataclass(frozen=True)
class DocumentDifference:
    """A document of both revisions: the unified diff, its changed lines, and the unexpected ones among them."""

    name: str
    diff: tuple[str, ...]
    changed: tuple[str, ...]
    unexpected: tuple[str, ...]


def compare_texts(name: str, before: str, after: str, expected: Sequence[str] = ()) -> DocumentDifference:
    """Compare two texts by line. A changed line is expected if it contains one of the texts `expected`."""
    names = f"before/{name}", f"after/{name}"
    diff = tuple(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm=""))
    changed = tuple(line for line in diff[2:] if line[0] in "+-")  # the first two lines are the names
    return DocumentDifference(name, diff, changed, tuple(drop_expected(changed, expected)))


def drop_expected(lines: Iterable[str], expected: Sequence[str]) -> list[str]:
    """The lines that contain none of the texts `expected`."""
    return [line for line in lines if not any(text in line for text in expected)]


def list_differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Each path at which two values of JSON differ, with both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            yield from list_differences(
                before.get(name, NOTHING), after.get(name, NOTHING), f"{path}.{name}" if path else str(name)
            )
    elif isinstance(before, list) and isinstance(after, list):
        for number in range(max(len(before), len(after))):
            first, second = (side[number] if number < len(side) else NOTHING for side in (before, after))
            yield from list_differences(first, second, f"{path}[{number}]")
    elif before != after or type(before) is not type(after):  # 1, 1.0 and true are equal in Python, and not in JSON
        yield f"{path}: {before!r} before, {after!r} after"


def drop_fields(value: Any, names: Set[str]) -> Any:
    """A value of JSON without the fields with these names, at any depth."""
    if isinstance(value, Mapping):
        return {name: drop_fields(item, names) for name, item in value.items() if name not in names}
    return [drop_fields(item, names) for item in value] if isinstance(value, list) else value
