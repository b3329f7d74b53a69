"""Rows of JSON: one object a line, an array of objects, or such an array inside an object (`{"data": [...]}`).

Each row is parsed alone, so a broken row does not affect the others, and the whole text is never in memory.
"""

import mmap
import re
from collections.abc import Iterator
from typing import BinaryIO

from service.evaluation.datasets.rows import BOM, MOST_ROW_BYTES, TOKEN, RawRow

# Names under which an object holds the rows. No row of a schema has a list of objects under one of them.
WRAPPERS = (b'"data"', b'"rows"', b'"records"', b'"examples"', b'"instances"', b'"edits"')

_BLANK = re.compile(rb"[ \t\r\n]*+")
_ARRAY_OF_OBJECTS = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+(\[)[ \t\r\n]*+[{\]]")


def split_json(file: BinaryIO, first: bytes) -> Iterator[RawRow]:
    """The rows of a file whose first byte that is not white space is `first`."""
    if first not in (b"[", b"{"):
        return _split_lines(file)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        array = data.find(b"[") if first == b"[" else _find_wrapped_array(data)
    return _split_lines(file) if array is None else _split_array(file, array, is_wrapped=first == b"{")


def _find_wrapped_array(data: mmap.mmap) -> int | None:
    """Where the array of rows begins in the file's first object; None if it holds none."""
    depth = 0
    for match in TOKEN.finditer(data, data.find(b"{")):
        token = match.group() if data[match.start() : match.start() + 1] != b'"' else data[match.start() : match.start() + 16]
        depth += token in (b"{", b"[")
        depth -= token in (b"}", b"]")
        if depth == 0:
            return None
        if depth == 1 and token.startswith(WRAPPERS):
            array = _ARRAY_OF_OBJECTS.match(data, match.end())
            if array is not None:
                return array.start(1)
    return None


def _split_lines(file: BinaryIO) -> Iterator[RawRow]:
    file.seek(0)
    number = 0
    while line := file.readline(MOST_ROW_BYTES + 2):
        number += 1
        if not line.endswith(b"\n"):
            skip_rest(file)
        text = (line.removeprefix(BOM) if number == 1 else line).strip(b" \t\r\n")
        if text:
            yield RawRow(number, line if len(line) > MOST_ROW_BYTES else text)


def skip_rest(file: BinaryIO) -> None:
    """Read to the end of the line, in pieces."""
    while (rest := file.readline(MOST_ROW_BYTES)) and not rest.endswith(b"\n"):
        pass


def _split_array(file: BinaryIO, first_bracket: int, *, is_wrapped: bool) -> Iterator[RawRow]:
    """The elements of an array. An element that is not closed extends to the end of the file. An incomplete array ends with a bad
    row. What is behind the array belongs to the object around it, if there is one."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        row_start, depth, index = first_bracket + 1, 1, 0
        for match in TOKEN.finditer(data, first_bracket + 1):
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
        has_rest = (depth > 0 or not is_wrapped) and not _is_blank(data, row_start, len(data))
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
