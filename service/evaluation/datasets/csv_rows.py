"""Rows of a CSV file with a header: a row becomes the JSON object of its cells, each a text under its column's name.

The cells are separated as in the header: by commas, semicolons or tabs. A column without a name, such as the index that pandas
writes, is left out.
"""

import csv
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from service.domain.errors import Refused
from service.evaluation.datasets.json_rows import skip_rest
from service.evaluation.datasets.rows import BOM, MOST_ROW_BYTES, TOO_LARGE, RawRow

SEPARATORS = ",;\t"
NOT_CSV = "it is not CSV, or a cell has more than 131,072 characters"  # the bound of Python's csv

_QUOTED = re.compile('"[^"]*"')


def split_csv(file: BinaryIO) -> Iterator[RawRow]:
    """The rows below the header. A position is the line on which the row begins, from 1. Raises Refused for a header that names
    no columns."""
    lines = _Lines(file)
    header = lines.read_header()
    reader = csv.reader(lines, delimiter=max(SEPARATORS, key=_QUOTED.sub("", header).count), strict=True)
    names = _parse_header(header, reader.dialect.delimiter)
    while True:
        position = lines.begin_row()
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if any(cells):
                yield _build_row(position, names, cells)
        except csv.Error:
            yield RawRow(position, b"", NOT_CSV)
        except _RowTooLarge:
            yield RawRow(position, b"", TOO_LARGE)


class _RowTooLarge(Exception):
    """A row goes on for more bytes than a row may have."""


class _Lines:
    """The lines of a file as text, and how many bytes of the current row were read."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = file
        self._number, self._bytes = 0, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MOST_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._bytes += len(line)
        if self._bytes > MOST_ROW_BYTES:
            if not line.endswith(b"\n"):
                skip_rest(self._file)
            raise _RowTooLarge
        return line.decode("utf-8", errors="surrogateescape")

    def begin_row(self) -> int:
        """Count the bytes of a new row; the number of its first line."""
        self._bytes = 0
        return self._number + 1

    def read_header(self) -> str:
        """The first line that is not blank."""
        try:
            header = next((line for line in self if line.strip(" \t\r\n\ufeff")), "")
        except _RowTooLarge:
            raise Refused(f"the header of the CSV file has more than {MOST_ROW_BYTES >> 20} MiB", field="path") from None
        return header.removeprefix(BOM.decode())


def _parse_header(header: str, separator: str) -> list[str]:
    try:
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator, strict=True), [])]
    except csv.Error:
        raise Refused("the header of the CSV file is not one line of column names", field="path") from None
    used = [name for name in names if name]
    if len(set(used)) < len(used):
        raise Refused("the header of the CSV file names a column twice", field="path")
    return names


def _build_row(position: int, names: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(names):
        return RawRow(position, b"", "it has more or fewer cells than the header")
    fields = json.dumps({name: cell for name, cell in zip(names, cells, strict=True) if name}, ensure_ascii=False)
    return RawRow(position, fields.encode("utf-8", errors="surrogateescape"))  # bytes that are not UTF-8 are a fault of the row
