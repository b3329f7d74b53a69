"""Loading: rows to records by a named schema, or by the schema of the first rows. A bad row is reported and left out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from service.domain.errors import Refused
from service.evaluation.datasets.convsent import KNOWEDIT_CONVSENT
from service.evaluation.datasets.counterfact import COUNTERFACT, COUNTERFACT_ROME
from service.evaluation.datasets.errata import ERRATA
from service.evaluation.datasets.fields import NOT_READ, Fields
from service.evaluation.datasets.files import NAME_ENCODING, read_raw_rows
from service.evaluation.datasets.hallueditbench import HALLUEDITBENCH
from service.evaluation.datasets.knowedit import KNOWEDIT, KNOWEDIT_WIKIBIO
from service.evaluation.datasets.mededit import MEDEDITBENCH, MEDEDITBENCH_RATIONALE, MEDEDITBENCH_SELF, MEDEDITEVAL
from service.evaluation.datasets.mquake import MQUAKE
from service.evaluation.datasets.qaedit import QAEDIT
from service.evaluation.datasets.repeats import Repeats
from service.evaluation.datasets.ripple_edits import RIPPLE_EDITS
from service.evaluation.datasets.rows import NOT_JSON, NOT_UTF8, BadRow, RawRow, parse_row
from service.evaluation.datasets.schema import Schema
from service.evaluation.datasets.unke import UNKE
from service.evaluation.datasets.wikibigedit import WIKIBIGEDIT, WIKIBIGEDIT_LOCFT
from service.evaluation.datasets.wise import WISE_TEMPORAL
from service.evaluation.datasets.zsre import MZSRE, ZSRE, ZSRE_PORTABILITY
from service.evaluation.records import Record

SAMPLE_ROWS = 100  # from which the schema is detected
MOST_NOTES = 200  # different ones
OTHER_NOTES = f"other fields: {NOT_READ}"

# The first schema that matches is used, so schemas with more specific fields come first.
_ALL = (
    ZSRE_PORTABILITY,
    ZSRE,
    MZSRE,
    RIPPLE_EDITS,
    HALLUEDITBENCH,
    UNKE,
    MQUAKE,
    COUNTERFACT_ROME,
    MEDEDITBENCH,
    MEDEDITEVAL,
    MEDEDITBENCH_RATIONALE,
    MEDEDITBENCH_SELF,
    KNOWEDIT_CONVSENT,
    KNOWEDIT_WIKIBIO,
    WIKIBIGEDIT,
    QAEDIT,
    KNOWEDIT,
    COUNTERFACT,
    WISE_TEMPORAL,
    WIKIBIGEDIT_LOCFT,
    ERRATA,
)
_BY_NAME: Mapping[str, Schema] = {schema.name: schema for schema in _ALL}
SCHEMAS: tuple[str, ...] = tuple(sorted(_BY_NAME))


@dataclass(frozen=True)
class RowFault:
    """A row that is no record: its line (from 1) or its index in an array (from 0), and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class LoadedDataset:
    """A data set: its records in order, its bad rows, and what was left out of good rows: each field's name and why, counted."""

    schema: str
    records: tuple[Record, ...]
    bad: tuple[RowFault, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def load(
    path: Path, schema: str = "auto", *, limit: int | None = None, encoding: str | None = None, format: str = "auto"
) -> LoadedDataset:
    """The records of a file, or its first `limit` records. Later rows are not read, so bad ones among them are not reported.

    `encoding` and `format` are those of `files.read_raw_rows`. Raises Refused for a file that is not in them, for a schema that
    is unknown or cannot be detected, and for a data set without records.
    """
    return read(read_raw_rows(path, encoding=encoding, format=format), schema, limit=limit)


def read(rows: Iterable[RawRow], schema: str = "auto", *, limit: int | None = None) -> LoadedDataset:
    """The records of rows in memory, such as those of a request."""
    if schema != "auto" and schema not in _BY_NAME:
        raise Refused(f"the schema must be auto or one of {', '.join(SCHEMAS)}", field="schema")
    rows = iter(rows)
    if schema == "auto":
        sample = _first_rows(rows)
        detected, rows = _detect_schema(sample), chain(sample, rows)
    else:
        detected = _BY_NAME[schema]
    return _read_rows(rows, detected, limit)


def _read_rows(rows: Iterable[RawRow], schema: Schema, limit: int | None) -> LoadedDataset:
    records: list[Record] = []
    faults: list[RowFault] = []
    notes: Counter[str] = Counter()
    repeats = Repeats()
    for number, row in enumerate(rows):
        row_notes: Counter[str] = Counter()  # so that a row left out leaves no notes
        try:
            fields = Fields(parse_row(row), row_notes)
            new_records = repeats.take(schema.read(fields, number), fields)
            fields.note_unread()
        except BadRow as error:
            faults.append(RowFault(row.position, error.reason))
            continue
        records += new_records
        _add_notes(notes, row_notes)
        if limit is not None and len(records) >= limit:
            break
    if not records:
        raise _explain_empty(schema, faults)
    return LoadedDataset(schema.name, tuple(records[:limit]), tuple(faults), dict(notes))


def _add_notes(notes: Counter[str], of_row: Counter[str]) -> None:
    """Names of fields come from the file, so there are not more than `MOST_NOTES` of them."""
    for note, count in of_row.items():
        notes[note if note in notes or len(notes) < MOST_NOTES else OTHER_NOTES] += count


def _explain_empty(schema: Schema, faults: list[RowFault]) -> Refused:
    if not faults:
        return Refused("the data set is empty", field="path")
    reasons = {fault.reason for fault in faults}
    sentence = f"no row is a record of the schema {schema.name}; row {faults[0].line}: {faults[0].reason}"
    return _explain_unreadable(reasons) or Refused(sentence, field="path")


def _explain_unreadable(reasons: set[str]) -> Refused | None:
    """What a file is in which each row has one of these reasons for being bad; None if that cannot be told."""
    if NOT_UTF8 in reasons and reasons <= {NOT_UTF8, NOT_JSON}:
        return Refused(f"the data set is not UTF-8: {NAME_ENCODING}", field="encoding")
    if reasons == {NOT_JSON}:
        return Refused("the data set is not JSON; if it is CSV, say so with --format csv", field="format")
    return None


def _first_rows(rows: Iterator[RawRow]) -> list[RawRow]:
    return list(islice(rows, SAMPLE_ROWS))


def _detect_schema(rows: list[RawRow]) -> Schema:
    if not rows:
        raise Refused("the data set is empty", field="path")
    faults: list[RowFault] = []
    for row in rows:
        try:
            fields = parse_row(row)
        except BadRow as error:
            faults.append(RowFault(row.position, error.reason))
            continue
        for schema in _ALL:
            if schema.is_match(fields):
                return schema
    if len(faults) == len(rows):  # no row can be read, whatever its schema
        sentence = f"no row can be read; row {faults[0].line}: {faults[0].reason}"
        raise _explain_unreadable({fault.reason for fault in faults}) or Refused(sentence, field="path")
    names = ", ".join(SCHEMAS)
    raise Refused(f"the schema cannot be told from the fields of the first rows; name one of {names}", field="schema")
