"""Rows of aliases: names that people move from version to version, such as `stable`. Every move is a row and stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.errors import NotFound
from service.store import tables as t


@dataclass(frozen=True)
class AliasMove:
    """One move of an alias to a version; to None when it was removed."""

    name: str
    version: int | None
    author: str
    reason: str | None
    at: datetime


def read_all(connection: Connection) -> list[AliasMove]:
    """The aliases that there are, each by its last move, in order of name."""
    select = sa.select(t.alias_moves).where(t.alias_moves.c.number.in_(_last_numbers()), t.alias_moves.c.version.is_not(None))
    return _moves(connection, select.order_by(t.alias_moves.c.name))


def get(connection: Connection, name: str) -> AliasMove:
    """An alias by its last move. Raises NotFound for one that does not exist, or was removed."""
    last = read_history(connection, name, limit=1)
    if not last or last[0].version is None:
        raise NotFound("no version and no alias has this name", field="alias")
    return last[0]


def read_history(connection: Connection, name: str, *, limit: int) -> list[AliasMove]:
    """The moves of an alias, newest first; also of one that was removed."""
    select = sa.select(t.alias_moves).where(t.alias_moves.c.name == name).order_by(t.alias_moves.c.number.desc()).limit(limit)
    return _moves(connection, select)


def move(connection: Connection, moved: AliasMove) -> None:
    """Write a move. The head must be locked, so that moves are numbered in order."""
    last = connection.execute(sa.select(sa.func.max(t.alias_moves.c.number))).scalar() or 0
    row = {"name": moved.name, "version": moved.version, "author": moved.author, "reason": moved.reason, "at": moved.at}
    connection.execute(sa.insert(t.alias_moves).values(number=last + 1, **row))


def named_versions() -> sa.Select[tuple[int]]:
    """The statement of the versions that an alias names: they are kept at any age."""
    return sa.select(t.alias_moves.c.version).where(
        t.alias_moves.c.number.in_(_last_numbers()), t.alias_moves.c.version.is_not(None)
    )


def _last_numbers() -> sa.Select[tuple[int]]:
    return sa.select(sa.func.max(t.alias_moves.c.number)).group_by(t.alias_moves.c.name)


def _moves(connection: Connection, select: sa.Select[tuple[object, ...]]) -> list[AliasMove]:
    rows: Sequence[sa.Row[tuple[object, ...]]] = connection.execute(select).all()
    return [AliasMove(row.name, row.version, row.author, row.reason, row.at) for row in rows]
