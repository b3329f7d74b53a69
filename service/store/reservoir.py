"""A bounded uniform sample of real prompts, kept only where an operator asked for it.

Reservoir sampling with random keys: every prompt draws a random key, its *lot*, and the prompts with the `size` lowest lots are
kept. That is a uniform sample of all offered prompts without a count of them, so it stays uniform over restarts and over several
servers.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.store import tables as t
from service.store.edits import CHUNK
from service.store.wording_search import Match, Wordings

LOTS = 2**31  # lots are below it and fit a database's INTEGER; the column `slot` holds the lot


def offer(connection: Connection, prompts: Iterable[tuple[int, str]], *, size: int, now: datetime) -> int | None:
    """Add prompts with their lots, and keep the `size` lowest lots. Returns the bound of `read_bound`.

    Of two prompts with one lot the later one replaces the earlier one.
    """
    for lot, prompt in prompts:
        connection.execute(sa.delete(t.reservoir).where(t.reservoir.c.slot == lot))
        connection.execute(sa.insert(t.reservoir).values(slot=lot, prompt=prompt, at=now))
    beyond = connection.execute(sa.select(t.reservoir.c.slot).order_by(t.reservoir.c.slot).offset(size).limit(1)).scalar()
    if beyond is not None:
        connection.execute(sa.delete(t.reservoir).where(t.reservoir.c.slot >= beyond))
    return read_bound(connection, size=size)


def read_bound(connection: Connection, *, size: int) -> int | None:
    """The lot from which on a prompt is not kept; None while the reservoir is not full."""
    count, highest = connection.execute(sa.select(sa.func.count(), sa.func.max(t.reservoir.c.slot))).one()
    return int(highest) if count >= size and highest is not None else None


def sample(connection: Connection, count: int) -> list[str]:
    """At most `count` of the prompts, in order of their lots, so always the same ones of one reservoir."""
    select = sa.select(t.reservoir.c.prompt).order_by(t.reservoir.c.slot).limit(count)
    return list(connection.execute(select).scalars())


def find_matches(connection: Connection, wordings: Wordings) -> dict[int, Match]:
    """The prompts that contain, or perhaps contain, one of the wordings, by their lots."""
    rows = connection.execute(sa.select(t.reservoir.c.slot, t.reservoir.c.prompt))
    return {row.slot: match for row in rows if (match := wordings.match(row.prompt))}


def remove(connection: Connection, lots: Sequence[int]) -> int:
    """Delete prompts by their lots. Returns their number."""
    lot_chunks = (list(lots[begin : begin + CHUNK]) for begin in range(0, len(lots), CHUNK))
    return sum(connection.execute(sa.delete(t.reservoir).where(t.reservoir.c.slot.in_(chunk))).rowcount for chunk in lot_chunks)


def clear(connection: Connection) -> None:
    """Delete all prompts."""
    connection.execute(sa.delete(t.reservoir))
