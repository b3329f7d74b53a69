"""The identity of a store: its id is in the database and in the data folder, and a pair that does not match is refused before
anything happens.

The id in the folder is a small file beside the checkpoints, the mark. A folder without a mark is not the expected one: a disk
is not mounted, or the folder is new or another store's. An empty database beside checkpoints is not a new store, but a lost
one.
"""

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import Connection

from service.domain.errors import Conflict, Refused, Unavailable, Unreadable
from service.lifecycle.settings import SERVICE
from service.lm.checkpoint_files import CHECKPOINT_SUFFIX
from service.lm.durable_files import write_durably
from service.store import heads, versions
from service.store.clock import read_now
from service.store.database import Store
from service.store.ids import new_id

MARK_FILE = "store.json"
MAX_MARK_BYTES = 4096  # bytes
STORE_ID = re.compile(r"[0-9a-z-]{1,36}")


@dataclass(frozen=True)
class FolderMark:
    """The store that a folder belongs to. A mark that is not complete was written by a process that may have ended before it
    made the store.
    """

    store_id: str
    is_complete: bool


def check_same_store(store: Store, folder: Path) -> None:
    """Raise Conflict if the database and the folder of checkpoints are not of one store, Unreadable if the folder cannot be
    read.

    A new database and a new folder are of one store.
    """
    mark = read_mark(folder)
    with store.read() as connection:
        _check(connection, folder, mark)


def check_database_exists(store: Store, folder: Path) -> None:
    """Raise Conflict if the SQLite file of a store is missing or empty, before an empty one is made in its place."""
    file = None if store.url.database is None else Path(store.url.database)
    if store.is_sqlite and file is not None and not (file.is_file() and file.stat().st_size):
        _check_new(folder, read_mark(folder))


def initialise_store(store: Store, *, fingerprint: str, name: str, folder: Path, now: datetime | None = None) -> str:
    """Make the first rows of a new store and mark its folder, or check an existing store; return the store's id.

    Raises Conflict if the store was made with another base model, or if database and folder are not of one store.
    """
    with store.write() as connection:
        heads.lock_opening(connection)
        mark = read_mark(folder)
        _check(connection, folder, mark)
        is_initialised, store_id = heads.read_store(connection)
        chosen = store_id or (mark.store_id if mark is not None else new_id())
        if mark is None:
            write_mark(folder, FolderMark(chosen, is_complete=False))
        heads.create_or_check(
            connection, fingerprint=fingerprint, name=name, author=SERVICE, now=now or read_now(connection), store_id=chosen
        )
        if is_initialised and store_id is None:
            heads.name_store(connection, chosen)
    if mark is None or not mark.is_complete:
        write_mark(folder, FolderMark(chosen, is_complete=True))
    return chosen


def adopt(store: Store, folder: Path) -> str:
    """Mark a folder as the database's own although the two do not match; return the store's id. For a folder that was restored
    without its mark, or lost: checkpoints that are not in it cannot be read.

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
    write_mark(folder, FolderMark(chosen, is_complete=True))
    return chosen


def is_marked(folder: Path) -> bool:
    """Whether the folder is there and belongs to some store. The mount point of a disk that was removed does not."""
    return (folder / MARK_FILE).is_file()


def read_mark(folder: Path) -> FolderMark | None:
    """The mark of a folder, or None if it has none. Raises Unreadable if the mark cannot be read now or is damaged."""
    try:
        with (folder / MARK_FILE).open("rb") as file:
            data = json.loads(file.read(MAX_MARK_BYTES))
        mark = FolderMark(data["store"], data["founded"])
        if not (isinstance(mark.store_id, str) and STORE_ID.fullmatch(mark.store_id) and isinstance(mark.is_complete, bool)):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(
            f"the data folder's checkpoints/{MARK_FILE} cannot be read: {os.strerror(error.errno or 0).lower()}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable(f"the data folder's checkpoints/{MARK_FILE} is damaged: restore it, or run `errata adopt`") from None
    return mark


def read_mark_or_none(folder: Path) -> FolderMark | None:
    """The mark of a folder, or None if it has none or the mark cannot be read."""
    try:
        return read_mark(folder)
    except Unreadable:
        return None


def write_mark(folder: Path, mark: FolderMark) -> None:
    """Write the mark of a folder durably. Raises Unavailable if it cannot be written."""
    data = json.dumps({"store": mark.store_id, "founded": mark.is_complete}).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / MARK_FILE, data, temporary=f".{MARK_FILE}.{os.urandom(4).hex()}.tmp")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise Unavailable(
            f"the data folder's checkpoints/{MARK_FILE} cannot be written: {reason}; see that it may be written to"
        ) from None


def count_checkpoints(folder: Path) -> int:
    """The number of checkpoints in a folder."""
    return sum(1 for _ in folder.glob(f"*{CHECKPOINT_SUFFIX}")) if folder.is_dir() else 0


def _check(connection: Connection, folder: Path, mark: FolderMark | None) -> None:
    is_initialised, store_id = heads.read_store(connection)
    if not is_initialised:
        _check_new(folder, mark)
    elif store_id is None:
        _check_unnamed(connection, folder, mark)
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


def _check_new(folder: Path, mark: FolderMark | None) -> None:
    """Raise Conflict if the folder of a new database holds a store's checkpoints."""
    if (mark is not None and mark.is_complete) or count_checkpoints(folder):
        whose = f"of store {mark.store_id}" if mark is not None else "of another store"
        raise Conflict(
            f"the database is empty, and the data folder is {whose}: restore the database from its backup, give the database_url"
            " that belongs to this folder, or give another data_dir for a new store",
            field="database_url",
        )


def _check_unnamed(connection: Connection, folder: Path, mark: FolderMark | None) -> None:
    """Check a store that was made before stores had ids: its folder holds the head's checkpoint."""
    version = versions.get(connection, heads.read(connection).version)
    is_here = version.digest is None or (folder / f"{version.digest}{CHECKPOINT_SUFFIX}").is_file()
    if (mark is not None and mark.is_complete) or not is_here:
        raise Conflict(
            f"the checkpoint of version {version.number}, the database's head, is not in the data folder's checkpoints/: mount it"
            " or restore it, or give the data_dir that belongs to this database; if it is lost, `errata adopt` makes this one the"
            " database's own",
            field="data_dir",
        )
