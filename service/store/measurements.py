"""Rows of measurements: the figures of a version that acceptance (source `gate`) and the monitor measured.

Only the last few rows of each version, name and source are kept.

Versions are published faster than the monitor measures, so most versions have few figures. A missing figure is taken from the
nearest version that this one came from. A rollback came from the version that it restored.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.version import ROLLBACK
from service.store import bases
from service.store import tables as t
from service.store.ids import new_id

Source = Literal["gate", "monitor"]
ROWS_KEPT = 20  # per version, name and source

RETENTION = "retention"
NEAR, SAME_SUBJECT, GIVEN, FAR, PROSE = "near", "same_subject", "given", "far", "prose"
INSIDE = "prose_inside"
CAPABILITY = "capability"
NAMES = (RETENTION, NEAR, SAME_SUBJECT, GIVEN, FAR, PROSE, INSIDE, CAPABILITY)
FIGURE_COLUMNS = ("name", "score", "n", "how", "low", "high", "floor")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured share of `n` questions. `how` is the method as a sentence.

    `low` and `high` bound its 95 % interval, and `floor` is the share that the base model keeps of itself; None: unknown.
    """

    name: str
    score: float
    n: int
    how: str
    low: float | None = None
    high: float | None = None
    floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement(Figure):
    """A figure with its version, its source and its time."""

    version: int
    source: str
    at: datetime


def insert(connection: Connection, version: int, source: Source, figures: Iterable[Figure], now: datetime) -> None:
    """Write figures of a version, and delete its oldest ones beyond ROWS_KEPT."""
    rows = [
        {"id": new_id(), "version": version, "source": source, **{name: getattr(figure, name) for name in FIGURE_COLUMNS}}
        for figure in figures
    ]
    if not rows:
        return
    connection.execute(sa.insert(t.measurements), [row | {"at": now} for row in rows])
    for row in rows:
        same = [getattr(t.measurements.c, name) == row[name] for name in ("version", "source", "name")]
        newest = sa.select(t.measurements.c.id).where(*same).order_by(*_newest_first()).limit(ROWS_KEPT)
        kept = list(connection.execute(newest).scalars())
        connection.execute(sa.delete(t.measurements).where(*same, t.measurements.c.id.not_in(kept)))


def read_latest(connection: Connection, version: int) -> Mapping[str, Measurement]:
    """The last figure of each name of this version itself, of either source."""
    return _last(connection, version, version)


def read_nearest(connection: Connection, version: int) -> Mapping[str, Measurement]:
    """The last figure of each name of a version, or else of the nearest version on the same base that it came from."""
    measured: dict[str, Measurement] = {}
    first = bases.read_first_version_of(connection, version)
    while True:
        candidates = _last(connection, first, version)
        older = {name: figure for name, figure in candidates.items() if name not in measured}
        oldest = min((figure.version for figure in older.values()), default=version)
        rollback = _last_rollback(connection, after=oldest, until=version)
        if rollback is None:
            return {**older, **measured}
        measured |= {name: figure for name, figure in older.items() if figure.version >= rollback["number"]}
        version = rollback["restores"]


def read_latest_by(connection: Connection, version: int, name: str, source: Source) -> Measurement | None:
    """The last figure of a name of one source."""
    same = (t.measurements.c.version == version, t.measurements.c.name == name, t.measurements.c.source == source)
    row = connection.execute(sa.select(t.measurements).where(*same).order_by(*_newest_first()).limit(1)).mappings().one_or_none()
    return None if row is None else _measurement(row)


def _last(connection: Connection, first: int, last: int) -> dict[str, Measurement]:
    """The last figure of each name, of the latest version from `first` to `last` that has one."""
    rows = connection.execute(_LAST, {"first": first, "last": last}).mappings()
    return {row["name"]: _measurement(row) for row in rows}


def _last_rollback(connection: Connection, *, after: int, until: int) -> RowMapping | None:
    if after == until:
        return None
    between = (t.versions.c.number > after, t.versions.c.number <= until, t.versions.c.kind == ROLLBACK)
    select = sa.select(t.versions.c.number, t.versions.c.restores).where(*between).order_by(t.versions.c.number.desc()).limit(1)
    return connection.execute(select).mappings().one_or_none()


def _measurement(row: RowMapping) -> Measurement:
    return Measurement(**{name: row[name] for name in Measurement.__dataclass_fields__})


def _newest_first() -> tuple[sa.ColumnElement[object], ...]:
    return t.measurements.c.at.desc(), t.measurements.c.id.desc()


def _select_last() -> sa.CompoundSelect[Any]:
    """The last row of each name among the versions from `:first` to `:last`, by one search of the index for each name."""
    between = t.measurements.c.version.between(sa.bindparam("first"), sa.bindparam("last"))
    latest_first = (t.measurements.c.version.desc(), *_newest_first())
    of_each = [
        sa.select(t.measurements).where(t.measurements.c.name == name, between).order_by(*latest_first).limit(1).subquery()
        for name in NAMES
    ]
    return sa.union_all(*(sa.select(last) for last in of_each))


_LAST = _select_last()  # built once: to build it takes longer than to run it, and every answer about a deferred edit runs it
