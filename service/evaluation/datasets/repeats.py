"""Rows with one id. Two that differ are two records, the later with a number behind its id; an identical one is refused."""

from collections import Counter
from dataclasses import replace
from itertools import count

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.rows import BadRow
from service.evaluation.records import Record

NUMBERED = "given to several rows; the later ones are numbered"


class Repeats:
    """The records that were taken, by their ids. No two of them have one id."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._rows: set[tuple[Record, ...]] = set()
        self._next: Counter[str] = Counter()

    def take(self, records: list[Record], row: Fields) -> list[Record]:
        """The records of a row, with ids that no earlier row has. Raises BadRow if an earlier row is the same."""
        if tuple(records) in self._rows:
            raise BadRow("it is the same as an earlier row")
        self._rows.add(tuple(records))
        if any(record.id in self._ids for record in records):
            row.note("id", NUMBERED)
            records = self._number(records)
        self._ids.update(record.id for record in records)
        return records

    def _number(self, records: list[Record]) -> list[Record]:
        """The records, and the case that they form, with a number behind their ids."""
        first = records[0].id
        for number in count(self._next[first] or 2):
            if not any(f"{record.id}-{number}" in self._ids for record in records):
                break
        self._next[first] = number + 1
        return [replace(record, id=f"{record.id}-{number}", case=record.case and f"{record.case}-{number}") for record in records]
