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
from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.knowedit import KNOWEDIT, KNOWEDIT_WIKIBIO
from service.evaluation.datasets.mededit import MEDEDITBENCH, MEDEDITBENCH_RATIONALE, MEDEDITBENCH_SELF, MEDEDITEVAL
from service.evaluation.datasets.mquake import MQUAKE
from service.evaluation.datasets.qaedit import QAEDIT
from service.evaluation.datasets.rows import BadRow, RawRow, parse_row, read_raw_rows
from service.evaluation.datasets.schema import Schema
from service.evaluation.datasets.wikibigedit import WIKIBIGEDIT, WIKIBIGEDIT_LOCFT
from service.evaluation.datasets.zsre import ZSRE, ZSRE_PORTABILITY
from service.evaluation.records import Record

SAMPLE_ROWS = 100  # from which the schema is detected

# The first schema that matches is used, so schemas with more specific fields come first.
_ALL = (
    ZSRE_PORTABILITY,
    ZSRE,
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
    """A data set: its records in order, its bad rows, and counts of parts that were left out of good rows."""

    schema: str
    records: tuple[Record, ...]
    bad: tuple[RowFault, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def load(path: Path, schema: str = "auto", *, limit: int | None = None) -> LoadedDataset:
    """The records of a file, or its first `limit` records. Later rows are not read, so bad ones among them are not reported.

    Raises Refused for a schema that is unknown or cannot be detected, and for a data set without records.
    """
    return read(read_raw_rows(path), schema, limit=limit)


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
    ids: set[str] = set()
    for number, row in enumerate(rows):
        row_notes: Counter[str] = Counter()  # so that a row left out leaves no notes
        try:
            new_records = schema.read(Fields(parse_row(row), row_notes), number)
            if not ids.isdisjoint(record.id for record in new_records):
                raise BadRow("its id is that of an earlier row")
        except BadRow as error:
            faults.append(RowFault(row.position, error.reason))
            continue
        ids.update(record.id for record in new_records)
        records += new_records
        notes += row_notes
        if limit is not None and len(records) >= limit:
            break
    if not records:
        raise Refused(_explain_empty(schema, faults), field="path")
    return LoadedDataset(schema.name, tuple(records[:limit]), tuple(faults), dict(notes))


def _explain_empty(schema: Schema, faults: list[RowFault]) -> str:
    if not faults:
        return "the data set is empty"
    return f"no row is a record of the schema {schema.name}; row {faults[0].line}: {faults[0].reason}"


def _first_rows(rows: Iterator[RawRow]) -> list[RawRow]:
    return list(islice(rows, SAMPLE_ROWS))


def _detect_schema(rows: list[RawRow]) -> Schema:
    if not rows:
        raise Refused("the data set is empty", field="path")
    for row in rows:
        try:
            fields = parse_row(row)
        except BadRow:
            continue
        for schema in _ALL:
            if schema.is_match(fields):
                return schema
    raise Refused(f"the schema cannot be told from the first rows; name one of {', '.join(SCHEMAS)}", field="schema")
