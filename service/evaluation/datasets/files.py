"""A data set's file: its size, its encoding and its form. Gives its rows as JSON in UTF-8, whatever the file has.

The size of a file and its number of rows are bounded. A file in another encoding is converted into a temporary file, in pieces.
"""

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import Refused, TooLong
from service.evaluation.datasets.csv_rows import split_csv
from service.evaluation.datasets.json_rows import split_json
from service.evaluation.datasets.rows import BOM, RawRow

MOST_BYTES = 4 << 30  # WikiBigEdit's half a million rows have 0.4 GiB
MOST_ROWS = 2_000_000
PIECE = 1 << 20  # bytes converted at once

FORMATS = ("auto", "json", "csv")
CSV_ENDINGS = (".csv", ".tsv")
NAME_ENCODING = "convert it, or name its encoding, such as gbk or utf-16, with --encoding"

# The mark of UTF-16 is the beginning of that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_raw_rows(path: Path, *, encoding: str | None = None, format: str = "auto") -> Iterator[RawRow]:
    """The rows of a file, in order. Without `encoding` the file is UTF-8, or UTF-16 or UTF-32 with a byte order mark. The format
    `auto` is CSV for a name that ends with .csv or .tsv, and else JSON.

    Raises Refused for a file that cannot be read or is not in its encoding or format, TooLong over a bound.
    """
    if format not in FORMATS:
        raise Refused(f"the format must be one of {', '.join(FORMATS)}", field="format")
    is_csv = format == "csv" or (format == "auto" and path.suffix.lower() in CSV_ENDINGS)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise Refused("the data set must be a file", field="path")
        if size > MOST_BYTES:
            raise _too_many_bytes()
        with path.open("rb") as source, _open_utf8(source, encoding) as file:
            first = _read_first(file)
            for number, row in enumerate(split_csv(file) if is_csv else split_json(file, first)):
                if number == MOST_ROWS:
                    raise TooLong(f"the data set must have at most {MOST_ROWS:,} rows", field="path")
                yield row
    except OSError as error:
        raise Refused("the data set cannot be read", field="path") from error


@contextmanager
def _open_utf8(source: BinaryIO, encoding: str | None) -> Iterator[BinaryIO]:
    """The file itself, or a temporary one with its text in UTF-8."""
    name = _find_encoding(source) if encoding is None else _parse_encoding(encoding)
    if name in ("utf-8", "ascii"):
        yield source
        return
    with tempfile.TemporaryFile() as target:
        _convert(source, name, target)
        yield target


def _find_encoding(source: BinaryIO) -> str:
    head = source.read(4)
    source.seek(0)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:  # a text that begins with a sign of JSON, or a letter, has one there in UTF-16 and UTF-32
        raise Refused(f"the data set is not UTF-8: {NAME_ENCODING}", field="encoding")
    return "utf-8"


def _parse_encoding(encoding: str) -> str:
    """The name by which Python knows a text encoding."""
    try:
        "a".encode(encoding)  # fails for codecs that are no encodings of text
        codecs.getincrementaldecoder(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise Refused("the encoding is not one that Python knows, such as utf-8, utf-16 or gbk", field="encoding") from None


def _convert(source: BinaryIO, encoding: str, target: BinaryIO) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while piece := source.read(PIECE):
            target.write(decoder.decode(piece).encode("utf-8"))
            if target.tell() > MOST_BYTES:
                raise _too_many_bytes()
        target.write(decoder.decode(b"", final=True).encode("utf-8"))
    except UnicodeError:
        raise Refused(f"the data set is not {encoding}: {NAME_ENCODING}", field="encoding") from None
    target.flush()  # the rows of an array are read from its descriptor


def _read_first(file: BinaryIO) -> bytes:
    """The first byte that is not white space. Raises Refused for an empty file."""
    file.seek(0)
    head = file.read(4096).removeprefix(BOM)
    first = head.lstrip(b" \t\r\n")[:1]
    if not first and len(head) < 4000:
        raise Refused("the data set is empty", field="path")
    return first


def _too_many_bytes() -> TooLong:
    return TooLong(f"the data set must have at most {MOST_BYTES >> 30} GiB", field="path")
