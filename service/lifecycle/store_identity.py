"""The identity of a store: its id is in the database and in the data folder, and a pair that does not match is refused before
anything happens.

The id in the data folder is the mark, beside the checkpoints. An empty database beside checkpoints is not a new store, but a
lost one.
"""

from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import Connection

from service.domain.arithmetic import Arithmetic
from service.domain.errors import Conflict, Refused, Unreadable
from service.domain.version import Head
from service.lifecycle.settings import SERVICE
from service.lm.checkpoint_store import CheckpointStore, StoreMark
from service.store import heads, versions
from service.store.clock import read_now
from service.store.database import Store
from service.store.ids import new_id


def check_same_store(store: Store, checkpoints: CheckpointStore) -> None:
    """Raise Conflict if the database and the checkpoints are not of one store, Unreadable if their mark cannot be read.

    A new database and a new place for checkpoints are of one store.
    """
    mark = checkpoints.read_mark()
    with store.read() as connection:
        _check(connection, checkpoints, mark)


def check_database_exists(store: Store, checkpoints: CheckpointStore) -> None:
    """Raise Conflict if the SQLite file of a store is missing or empty, before an empty one is made in its place."""
    file = None if store.url.database is None else Path(store.url.database)
    if store.is_sqlite and file is not None and not (file.is_file() and file.stat().st_size):
        _check_new(checkpoints, checkpoints.read_mark())


def read_pinned(store: Store) -> Head | None:
    """The head of a store, which names the base model and the arithmetic that it was made with; None if the store is new."""
    with store.read() as connection:
        is_initialised, _ = heads.read_store(connection)
        return heads.read(connection) if is_initialised else None


def initialise_store(
    store: Store,
    *,
    fingerprint: str,
    name: str,
    checkpoints: CheckpointStore,
    arithmetic: Arithmetic,
    pinned: Head | None = None,
    now: datetime | None = None,
    former: str | None = None,
) -> str:
    """Make the first rows of a new store and mark its checkpoints, or check an existing store; return the store's id. `former`:
    the fingerprint by which an older release pinned the same base; it is replaced.

    `arithmetic` is pinned; `pinned` is the head that it was chosen by. Raises Conflict if the store was made with another base
    model, or if database and checkpoints are not of one store, and Unavailable if another server pins another arithmetic.
    """
    with store.write() as connection:
        heads.lock_opening(connection)
        mark = checkpoints.read_mark()
        _check(connection, checkpoints, mark)
        is_initialised, store_id = heads.read_store(connection)
        chosen = store_id or (mark.store_id if mark is not None else new_id())
        if mark is None:
            checkpoints.write_mark(StoreMark(chosen, is_complete=False))
        heads.create_or_check(
            connection,
            fingerprint=fingerprint,
            name=name,
            author=SERVICE,
            now=now or read_now(connection),
            store_id=chosen,
            former=former,
        )
        heads.pin_arithmetic(connection, arithmetic, seen=None if pinned is None else pinned.arithmetic)
        if is_initialised and store_id is None:
            heads.name_store(connection, chosen)
    if mark is None or not mark.is_complete:
        checkpoints.write_mark(StoreMark(chosen, is_complete=True))
    return chosen


def adopt(store: Store, checkpoints: CheckpointStore) -> str:
    """Mark a place of checkpoints as the database's own although the two do not match; return the store's id. For a place that
    was restored without its mark, or lost: checkpoints that are not there cannot be read.

    Raises Refused for a database without a store.
    """
    with store.write() as connection:
        heads.lock_opening(connection)
        is_initialised, store_id = heads.read_store(connection)
        if not is_initialised:
            raise Refused("the database is empty, so there is nothing that the data folder could belong to: restore it first")
        chosen = store_id or new_id()
        if store_id is None:
            heads.name_store(connection, chosen)
    checkpoints.write_mark(StoreMark(chosen, is_complete=True))
    return chosen


def read_mark_or_none(checkpoints: CheckpointStore) -> StoreMark | None:
    """The mark of a place of checkpoints, or None if it has none or the mark cannot be read."""
    try:
        return checkpoints.read_mark()
    except Unreadable:
        return None


def _check(connection: Connection, checkpoints: CheckpointStore, mark: StoreMark | None) -> None:
    is_initialised, store_id = heads.read_store(connection)
    if not is_initialised:
        _check_new(checkpoints, mark)
    elif store_id is None:
        _check_unnamed(connection, checkpoints, mark)
    elif mark is None:
        raise Conflict(
            f"the database is of store {store_id}, and the data folder's checkpoints/ is not: mount it or restore it, or give the"
            " data_dir that belongs to this database; if it is lost, `errata adopt` makes this one the database's own",
            field="data_dir",
        )
    elif mark.store_id != store_id:
        raise Conflict(
            f"the data folder is of store {mark.store_id}, and the database is of store {store_id}: give a data_dir and a"
            " database_url that belong together",
            field="data_dir",
        )


def _check_new(checkpoints: CheckpointStore, mark: StoreMark | None) -> None:
    """Raise Conflict if there are a store's checkpoints beside a new database."""
    if (mark is not None and mark.is_complete) or checkpoints.count():
        whose = f"of store {mark.store_id}" if mark is not None else "of another store"
        raise Conflict(
            f"the database is empty, and the data folder is {whose}: restore the database from its backup, give the database_url"
            " that belongs to this folder, or give another data_dir for a new store",
            field="database_url",
        )


def _check_unnamed(connection: Connection, checkpoints: CheckpointStore, mark: StoreMark | None) -> None:
    """Check a store that was made before stores had ids: its head's checkpoint is there."""
    version = versions.get(connection, heads.read(connection).version)
    is_here = version.digest is None or checkpoints.has(version.digest)
    if (mark is not None and mark.is_complete) or not is_here:
        raise Conflict(
            f"the checkpoint of version {version.number}, the database's head, is not in the data folder's checkpoints/: mount it"
            " or restore it, or give the data_dir that belongs to this database; if it is lost, `errata adopt` makes this one the"
            " database's own",
            field="data_dir",
        )
