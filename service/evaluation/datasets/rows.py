"""A row of a data set: its bytes and its position, and its fields. A row may be hostile: its size and its nesting are bounded."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

MOST_ROW_BYTES = 4 << 20
DEEPEST = 32
LONGEST_NUMBER = 20  # digits: 2^63 has 19

TOO_LARGE = f"it has more than {MOST_ROW_BYTES >> 20} MiB"
NOT_UTF8 = "it is not UTF-8"
NOT_JSON = "it is not JSON"
BOM = b"\xef\xbb\xbf"
# A string (to the end of the text if it is not closed), or a bracket, or the comma between rows.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


class BadRow(Exception):
    """The reason why a row is no record. The reason never repeats the row's content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class RawRow:
    """A row as the bytes of a JSON object, with its position: its line in a file of lines or a CSV file (from 1), or its index in
    an array (from 0). `fault` says why the row could not be cut out of its file."""

    position: int
    text: bytes
    fault: str | None = None


def parse_row(row: RawRow) -> dict[str, Any]:
    """The JSON object of a row. A number with a point is its digits as text. Raises BadRow."""
    if row.fault is not None:
        raise BadRow(row.fault)
    if len(row.text) > MOST_ROW_BYTES:
        raise BadRow(TOO_LARGE)
    try:
        text = row.text.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRow(NOT_UTF8) from None
    if _depth(row.text) > DEEPEST:
        raise BadRow(f"it nests more than {DEEPEST} levels deep")
    try:
        fields = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer)
    except ValueError:
        raise BadRow(NOT_JSON) from None
    if not isinstance(fields, dict):
        raise BadRow("it is not an object")
    return fields


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for match in TOKEN.finditer(text):
        token = match.group()[:1]
        depth += token in b"[{"
        depth -= token in b"]}"
        deepest = max(deepest, depth)
    return deepest


def _no_constant(_name: str) -> None:
    raise BadRow("it holds NaN or an infinity, which are not JSON")


def _finite(digits: str) -> str:
    """The digits themselves: an answer is 2.50, where a number would be 2.5."""
    if not math.isfinite(float(digits)):
        raise BadRow("it holds a number that is too large")
    return digits


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise BadRow("it holds a number that is too large")
    return int(digits)
