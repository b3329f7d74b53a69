"""Bytes to rows of a JSON array or of JSON lines. Each row is parsed alone, so a broken row does not affect the others.

The file may be hostile: its size, the size of a row and the depth of nesting are bounded, and the whole text is never in memory.
"""

import json
import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain.errors import Refused, TooLong

MOST_BYTES = 4 << 30  # WikiBigEdit's half a million rows have 0.4 GiB
MOST_ROW_BYTES = 4 << 20
MOST_ROWS = 2_000_000
DEEPEST = 32
LONGEST_NUMBER = 20  # digits: 2^63 has 19

_BOM = b"\xef\xbb\xbf"
# A string (to the end of the file if it is not closed), or a bracket, or the comma between rows.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*+")


class BadRow(Exception):
    """The reason why a row is no record. The reason never repeats the row's content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class RawRow:
    """A row as bytes with its position: its line in a file of lines (from 1), or its index in an array (from 0)."""

    position: int
    text: bytes


def read_raw_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file, in order. Raises Refused for a file that cannot be read or has neither form, TooLong over a bound."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise Refused("the data set must be a file", field="path")
        if size > MOST_BYTES:
            raise TooLong(f"the data set must have at most {MOST_BYTES >> 30} GiB", field="path")
        with path.open("rb") as file:
            start = _first_byte(file.read(4096))
            rows = _split_array(file.fileno()) if start == b"[" else _split_lines(file)
            for number, row in enumerate(rows):
                if number == MOST_ROWS:
                    raise TooLong(f"the data set must have at most {MOST_ROWS:,} rows", field="path")
                yield row
    except OSError as error:
        raise Refused("the data set cannot be read", field="path") from error


def parse_row(row: RawRow) -> dict[str, Any]:
    """The JSON object of a row. Raises BadRow."""
    if len(row.text) > MOST_ROW_BYTES:
        raise BadRow(f"it has more than {MOST_ROW_BYTES >> 20} MiB")
    try:
        text = row.text.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRow("it is not UTF-8") from None
    if _depth(row.text) > DEEPEST:
        raise BadRow(f"it nests more than {DEEPEST} levels deep")
    try:
        fields = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer)
    except ValueError:
        raise BadRow("it is not JSON") from None
    if not isinstance(fields, dict):
        raise BadRow("it is not an object")
    return fields


def _first_byte(head: bytes) -> bytes:
    """The first byte that is not white space. Raises Refused for an empty file, and for a file that is not UTF-8."""
    head = head.removeprefix(_BOM)
    start = head.lstrip(b" \t\r\n")[:1]
    if not start and len(head) < 4000:
        raise Refused("the data set is empty", field="path")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        raise Refused("the data set must be UTF-8", field="path")
    return start


def _split_lines(file: Any) -> Iterator[RawRow]:
    file.seek(0)
    number = 0
    while line := file.readline(MOST_ROW_BYTES + 2):
        number += 1
        if not line.endswith(b"\n"):
            _skip_rest(file)
        text = (line.removeprefix(_BOM) if number == 1 else line).strip(b" \t\r\n")
        if text:
            yield RawRow(number, line if len(line) > MOST_ROW_BYTES else text)


def _skip_rest(file: Any) -> None:
    while (rest := file.readline(MOST_ROW_BYTES)) and not rest.endswith(b"\n"):
        pass


def _split_array(descriptor: int) -> Iterator[RawRow]:
    """The elements of the outermost array. An element that is not closed extends to the end of the file. An incomplete array ends
    with a bad row."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        first_bracket = data.find(b"[")
        row_start, depth, index = first_bracket + 1, 1, 0
        for match in _TOKEN.finditer(data, first_bracket + 1):
            token = data[match.start() : match.start() + 1]
            if token in b"[{":
                depth += 1
            elif token in b"]}":
                depth -= 1
            if (token == b"," and depth == 1) or depth == 0:
                if token == b"," or index or not _is_blank(data, row_start, match.start()):
                    yield _slice_row(data, row_start, match.start(), index)
                    index += 1
                row_start = match.end()
            if depth == 0:
                break
        has_rest = not _is_blank(data, row_start, len(data))
        if depth == 1 and has_rest:  # a whole row, but the array does not end
            yield _slice_row(data, row_start, len(data), index)
            index += 1
        if depth or has_rest:
            yield RawRow(index, b"")


def _is_blank(data: mmap.mmap, start: int, end: int) -> bool:
    match = _BLANK.match(data, start, end)
    return match is not None and match.end() == end


def _slice_row(data: mmap.mmap, start: int, end: int, index: int) -> RawRow:
    return RawRow(index, data[start : min(end, start + MOST_ROW_BYTES + 1)])


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for match in _TOKEN.finditer(text):
        token = match.group()[:1]
        depth += token in b"[{"
        depth -= token in b"]}"
        deepest = max(deepest, depth)
    return deepest


def _no_constant(_name: str) -> None:
    raise BadRow("it holds NaN or an infinity, which are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BadRow("it holds a number that is too large")
    return number


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise BadRow("it holds a number that is too large")
    return int(digits)
