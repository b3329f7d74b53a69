"""A bounded uniform sample of the prompts that were asked, kept only where an operator asked for it.

Every prompt draws a lot; those with the `size` lowest lots are kept (Vitter's reservoir by random keys). That is a uniform
sample of all prompts ever offered without a count of them, so it stays one over restarts and over several servers.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.store import tables as t
from service.store.edits import CHUNK
from service.store.wordings import Match, Wordings

LOTS = 2**31  # what a database's small whole number holds; `slot` is the lot that a prompt drew


def offer(connection: Connection, prompts: Iterable[tuple[int, str]], *, size: int, now: datetime) -> int | None:
    """Keep prompts given with their lots if they are among the lowest; the lot from which on none is, None while all are.

    Two prompts with one lot are one too many; the later one replaces the earlier.
    """
    for lot, prompt in prompts:
        connection.execute(sa.delete(t.reservoir).where(t.reservoir.c.slot == lot))
        connection.execute(sa.insert(t.reservoir).values(slot=lot, prompt=prompt, at=now))
    beyond = connection.execute(sa.select(t.reservoir.c.slot).order_by(t.reservoir.c.slot).offset(size).limit(1)).scalar()
    if beyond is not None:
        connection.execute(sa.delete(t.reservoir).where(t.reservoir.c.slot >= beyond))
    return read_bound(connection, size=size)


def read_bound(connection: Connection, *, size: int) -> int | None:
    """The lot from which on a prompt is not kept; None while there is room for any."""
    count, highest = connection.execute(sa.select(sa.func.count(), sa.func.max(t.reservoir.c.slot))).one()
    return int(highest) if count >= size and highest is not None else None


def sample(connection: Connection, count: int) -> list[str]:
    """At most `count` of the prompts, by lot: of one reservoir always the same ones."""
    select = sa.select(t.reservoir.c.prompt).order_by(t.reservoir.c.slot).limit(count)
    return list(connection.execute(select).scalars())


def find_matches(connection: Connection, wordings: Wordings) -> dict[int, Match]:
    """Which prompts hold, or perhaps hold, one of some wordings, by the lots that they drew."""
    rows = connection.execute(sa.select(t.reservoir.c.slot, t.reservoir.c.prompt))
    return {row.slot: found for row in rows if (found := wordings.match(row.prompt))}


def remove(connection: Connection, lots: Sequence[int]) -> int:
    """Remove prompts by the lots that they drew; how many there were."""
    going = (list(lots[begin : begin + CHUNK]) for begin in range(0, len(lots), CHUNK))
    return sum(connection.execute(sa.delete(t.reservoir).where(t.reservoir.c.slot.in_(some))).rowcount for some in going)


def clear(connection: Connection) -> None:
    """Remove all of them."""
    connection.execute(sa.delete(t.reservoir))
