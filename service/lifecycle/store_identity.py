"""A database and a data folder know each other: the store's name is in both, and a stranger is refused before anything happens.

The name in the folder is a small file beside the checkpoints. Without it the folder is not the one that it should be: a disk that
is not mounted, somebody else's, or a new one. A database that is empty beside checkpoints is not a new store, but a lost one.
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

MARK = "store.json"
LARGEST_MARK = 4096  # bytes
NAME = re.compile(r"[0-9a-z-]{1,36}")


@dataclass(frozen=True)
class FolderMark:
    """Whose folder it is. One that is not `founded` was written by a process that may have ended before it made the store."""

    store: str
    founded: bool


def check_same_store(store: Store, folder: Path) -> None:
    """Raise Conflict if the database and the folder of checkpoints are not of one store, Unreadable if the folder cannot be read.

    What is new, on both sides, is of one store.
    """
    mark = read_mark(folder)
    with store.read() as connection:
        _check(connection, folder, mark)


def check_database_exists(store: Store, folder: Path) -> None:
    """Raise Conflict if the SQLite file of a store is missing or has no bytes: before an empty one is made in its place."""
    file = None if store.url.database is None else Path(store.url.database)
    if store.is_sqlite and file is not None and not (file.is_file() and file.stat().st_size):
        _check_new(folder, read_mark(folder))


def initialise_store(store: Store, *, fingerprint: str, name: str, folder: Path, now: datetime | None = None) -> str:
    """Make the first rows of a new store and mark the folder of its checkpoints as its own, or check an old one; its name.

    Raises Conflict if it was made with another base model, or if database and folder are not of one store.
    """
    with store.write() as connection:
        heads.lock_opening(connection)
        mark = read_mark(folder)
        _check(connection, folder, mark)
        is_made, known = heads.read_store(connection)
        chosen = known or (mark.store if mark is not None else new_id())
        if mark is None:
            write_mark(folder, FolderMark(chosen, founded=False))
        heads.create_or_check(
            connection, fingerprint=fingerprint, name=name, author=SERVICE, now=now or read_now(connection), store_id=chosen
        )
        if is_made and known is None:
            heads.name_store(connection, chosen)
    if mark is None or not mark.founded:
        write_mark(folder, FolderMark(chosen, founded=True))
    return chosen


def adopt(store: Store, folder: Path) -> str:
    """Make a folder the database's own although they do not know each other; the store's name. For a folder that was restored
    without its mark, or lost: what is not in it cannot be read.

    Raises Refused for a database without a store.
    """
    with store.write() as connection:
        heads.lock_opening(connection)
        is_made, known = heads.read_store(connection)
        if not is_made:
            raise Refused("the database is empty, so there is nothing that the data folder could belong to: restore it first")
        chosen = known or new_id()
        if known is None:
            heads.name_store(connection, chosen)
    write_mark(folder, FolderMark(chosen, founded=True))
    return chosen


def is_marked(folder: Path) -> bool:
    """Whether the folder is there and is some store's: a disk that was taken away shows none."""
    return (folder / MARK).is_file()


def read_mark(folder: Path) -> FolderMark | None:
    """Whose folder it is; None where nobody has said so. Raises Unreadable if it cannot be read now or is damaged."""
    try:
        with (folder / MARK).open("rb") as file:
            found = json.loads(file.read(LARGEST_MARK))
        mark = FolderMark(found["store"], found["founded"])
        if not (isinstance(mark.store, str) and NAME.fullmatch(mark.store) and isinstance(mark.founded, bool)):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(
            f"the data folder's checkpoints/{MARK} cannot be read: {os.strerror(error.errno or 0).lower()}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable(f"the data folder's checkpoints/{MARK} is damaged: restore it, or run `errata adopt`") from None
    return mark


def read_mark_or_none(folder: Path) -> FolderMark | None:
    """Whose folder it is; None also where that cannot be read."""
    try:
        return read_mark(folder)
    except Unreadable:
        return None


def write_mark(folder: Path, mark: FolderMark) -> None:
    """Say whose folder it is, durably. Raises Unavailable if it cannot be written."""
    data = json.dumps({"store": mark.store, "founded": mark.founded}).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / MARK, data, temporary=f".{MARK}.{os.urandom(4).hex()}.tmp")
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Unavailable(
            f"the data folder's checkpoints/{MARK} cannot be written: {why}; see that it may be written to"
        ) from None


def count_checkpoints(folder: Path) -> int:
    """How many checkpoints lie in a folder."""
    return sum(1 for _ in folder.glob(f"*{CHECKPOINT_SUFFIX}")) if folder.is_dir() else 0


def _check(connection: Connection, folder: Path, mark: FolderMark | None) -> None:
    is_made, known = heads.read_store(connection)
    if not is_made:
        _check_new(folder, mark)
    elif known is None:
        _check_unnamed(connection, folder, mark)
    elif mark is None:
        raise Conflict(
            f"the database is of store {known}, and the data folder's checkpoints/ is not: mount it or restore it, or give the"
            " data_dir that belongs to this database; if it is lost, `errata adopt` makes this one the database's own",
            field="data_dir",
        )
    elif mark.store != known:
        raise Conflict(
            f"the data folder is of store {mark.store}, and the database is of store {known}: give a data_dir and a database_url"
            " that belong together",
            field="data_dir",
        )


def _check_new(folder: Path, mark: FolderMark | None) -> None:
    """A new database goes with a folder that holds no store's checkpoints."""
    if (mark is not None and mark.founded) or count_checkpoints(folder):
        whose = f"of store {mark.store}" if mark is not None else "of another store"
        raise Conflict(
            f"the database is empty, and the data folder is {whose}: restore the database from its backup, give the database_url"
            " that belongs to this folder, or give another data_dir for a new store",
            field="database_url",
        )


def _check_unnamed(connection: Connection, folder: Path, mark: FolderMark | None) -> None:
    """A store of a release before names is where its head's checkpoint is."""
    version = versions.get(connection, heads.read(connection).version)
    is_here = version.digest is None or (folder / f"{version.digest}{CHECKPOINT_SUFFIX}").is_file()
    if (mark is not None and mark.founded) or not is_here:
        raise Conflict(
            f"the checkpoint of version {version.number}, the database's head, is not in the data folder's checkpoints/: mount it"
            " or restore it, or give the data_dir that belongs to this database; if it is lost, `errata adopt` makes this one the"
            " database's own",
            field="data_dir",
        )
