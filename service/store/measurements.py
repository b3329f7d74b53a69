"""Rows of measurements: what the gate and the monitor found of a version. Only the last few of each name and source are kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.store import tables as t
from service.store.ids import new_id

Source = Literal["gate", "monitor"]
KEPT = 20  # of one version, name and source

RETENTION = "retention"
INSIDE = "locality_inside"
OUTSIDE = "locality_outside"
CAPABILITY = "capability"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured share: of `n` questions, asked and judged as `how` says."""

    name: str
    score: float
    n: int
    how: str


@dataclass(frozen=True, kw_only=True)
class Measurement(Figure):
    """A figure with who found it, and when."""

    source: str
    at: datetime


def insert(connection: Connection, version: int, source: Source, figures: Iterable[Figure], now: datetime) -> None:
    """Keep what was found of a version, and forget what was found long before it."""
    rows = [
        {"id": new_id(), "version": version, "source": source, "name": one.name, "score": one.score, "n": one.n, "how": one.how}
        for one in figures
    ]
    if not rows:
        return
    connection.execute(sa.insert(t.measurements), [row | {"at": now} for row in rows])
    for row in rows:
        same = [getattr(t.measurements.c, name) == row[name] for name in ("version", "source", "name")]
        newest = sa.select(t.measurements.c.id).where(*same).order_by(*_newest_first()).limit(KEPT)
        kept = list(connection.execute(newest).scalars())
        connection.execute(sa.delete(t.measurements).where(*same, t.measurements.c.id.not_in(kept)))


def latest(connection: Connection, version: int) -> Mapping[str, Measurement]:
    """The last figure of each name that is known of a version, whoever found it."""
    select = sa.select(t.measurements).where(t.measurements.c.version == version).order_by(*_newest_first())
    found: dict[str, Measurement] = {}
    for row in connection.execute(select).mappings():
        if row["name"] not in found:
            found[row["name"]] = Measurement(**{name: row[name] for name in Measurement.__dataclass_fields__})
    return found


def latest_by(connection: Connection, version: int, name: str, source: Source) -> Measurement | None:
    """The last figure of a name that one of the two found."""
    same = (t.measurements.c.version == version, t.measurements.c.name == name, t.measurements.c.source == source)
    row = connection.execute(sa.select(t.measurements).where(*same).order_by(*_newest_first()).limit(1)).mappings().one_or_none()
    return None if row is None else Measurement(**{name: row[name] for name in Measurement.__dataclass_fields__})


def _newest_first() -> tuple[sa.ColumnElement[object], ...]:
    return t.measurements.c.at.desc(), t.measurements.c.id.desc()
