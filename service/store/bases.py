"""The base models of a store: the head row names the present one, and each former one has a row.

A base owns the versions from its first one, which is the base alone, up to the first one of the base that followed.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.version import Head
from service.store import tables as t


def read_first_version(connection: Connection) -> int:
    """The number of the first version of the present base."""
    return connection.execute(sa.select(sa.func.max(t.former_bases.c.until))).scalar_one() or 0


def read_first_version_of(connection: Connection, version: int) -> int:
    """The number of the first version of the base that a version is of."""
    earlier = sa.select(sa.func.max(t.former_bases.c.until)).where(t.former_bases.c.until <= version)
    return connection.execute(earlier).scalar_one() or 0


def change(connection: Connection, before: Head, *, fingerprint: str, name: str, first: int) -> None:
    """Pin another base from the version `first` on."""
    former = {"until": first, "fingerprint": before.base_fingerprint, "name": before.base_name}
    connection.execute(sa.insert(t.former_bases).values(**former))
    connection.execute(sa.update(t.head).values(base_fingerprint=fingerprint, base_name=name))


def of_version(column: str) -> sa.ColumnElement[str]:
    """The `fingerprint` or the `name` of the base that a row of `versions` is of, as a column of a selection."""
    former = sa.select(t.former_bases.c[column]).where(t.former_bases.c.until > t.versions.c.number)
    nearest = former.order_by(t.former_bases.c.until).limit(1).correlate(t.versions).scalar_subquery()
    present = sa.select(t.head.c[f"base_{column}"]).scalar_subquery()
    return sa.func.coalesce(nearest, present).label(f"base_{column}")
