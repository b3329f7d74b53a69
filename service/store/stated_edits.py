"""Rows of the edits that versions state in front of prompts: at most some tens a version, and none without a context tier."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.edit import Edit, EditStatus
from service.domain.liveset import LiveItem
from service.domain.version import VersionStatus
from service.store import edits
from service.store import tables as t
from service.store.edits import chunks

ROOM_FOR_KEYS = 4  # times as many edits are read as a version states, because of a conflict key only the last one counts


def read_ids(connection: Connection, version: int) -> tuple[str, ...]:
    """The ids of the edits that a version states, in order of submission."""
    return _read_ids(connection, version, withdrawn=False)


def read_withdrawn(connection: Connection, version: int) -> frozenset[str]:
    """The ids of the edits that rollbacks took back, and that wait still."""
    return frozenset(_read_ids(connection, version, withdrawn=True))


def read(connection: Connection, version: int) -> tuple[Edit, ...]:
    """The edits that a version states, in order of submission."""
    found = {edit.id: edit for edit in edits.read_many(connection, read_ids(connection, version))}
    return tuple(sorted(found.values(), key=lambda edit: edit.seq))


def insert(connection: Connection, version: int, edit_ids: Sequence[str], *, withdrawn: Collection[str] = ()) -> None:
    """Write the edits that a version states, and those that it must not state."""
    marked = [*((edit_id, False) for edit_id in edit_ids), *((edit_id, True) for edit_id in sorted(withdrawn))]
    rows = [
        {"version": version, "place": place, "edit_id": edit_id, "withdrawn": is_withdrawn}
        for place, (edit_id, is_withdrawn) in enumerate(marked)
    ]
    if rows:
        connection.execute(sa.insert(t.stated_edits), rows)


def find_versions(connection: Connection, edit_ids: Collection[str]) -> set[int]:
    """The versions that are not collected and state any of these edits."""
    versions = set[int]()
    joined = t.stated_edits.join(t.versions, t.versions.c.number == t.stated_edits.c.version)
    for chunk in chunks(edit_ids):
        select = sa.select(t.stated_edits.c.version).select_from(joined)
        is_stated = (t.stated_edits.c.edit_id.in_(chunk), sa.not_(t.stated_edits.c.withdrawn))
        kept = (*is_stated, t.versions.c.status != VersionStatus.COLLECTED)
        versions |= set(connection.execute(select.where(*kept)).scalars())
    return versions


def delete_of_collected(connection: Connection) -> None:
    """Delete the rows of collected versions."""
    collected = sa.select(t.versions.c.number).where(t.versions.c.status == VersionStatus.COLLECTED)
    connection.execute(sa.delete(t.stated_edits).where(t.stated_edits.c.version.in_(collected)))


def delete_withdrawn(connection: Connection, edit_ids: Collection[str]) -> None:
    """Delete the rows that say of these edits that they must not be stated."""
    for chunk in chunks(edit_ids):
        connection.execute(sa.delete(t.stated_edits).where(t.stated_edits.c.edit_id.in_(chunk), t.stated_edits.c.withdrawn))


def read_waiting(
    connection: Connection, statuses: Collection[EditStatus], *, without: Collection[str], characters: int, most: int
) -> list[LiveItem]:
    """Edits with one of these statuses, `without` some, as items of a live set. Without those that have more `characters`, and
    only the newest of very many.
    """
    if not statuses:
        return []
    edit = t.edits.c
    is_short = sa.func.length(edit.prompt) + sa.func.length(edit.target) <= characters
    select = sa.select(edit.id, edit.key_digest, edit.seq).where(edit.status.in_(statuses), is_short)
    rows = connection.execute(select.order_by(edit.seq.desc()).limit(ROOM_FOR_KEYS * most + len(without)))
    return [LiveItem(edit_id=row.id, key=row.key_digest, seq=row.seq) for row in rows if row.id not in without]


def keep_waiting(connection: Connection, edit_ids: Collection[str], statuses: Collection[EditStatus]) -> set[str]:
    """The ids of these edits that have one of the statuses."""
    found = edits.read_statuses(connection, edit_ids)
    return {edit_id for edit_id, status in found.items() if status in statuses}


def _read_ids(connection: Connection, version: int, *, withdrawn: bool) -> tuple[str, ...]:
    select = sa.select(t.stated_edits.c.edit_id).where(
        t.stated_edits.c.version == version, t.stated_edits.c.withdrawn == withdrawn
    )
    return tuple(connection.execute(select.order_by(t.stated_edits.c.place)).scalars())
