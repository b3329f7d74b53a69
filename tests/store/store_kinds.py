"""A store of each kind, new and founded, for the contract suite."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from service.store import heads
from service.store.database import Store
from service.store.live_set_cache import cache_of
from service.store.migrate import upgrade
from service.store.tables import edit_transitions, metadata
from tests.servers import postgres_database

KINDS = ("sqlite", "postgres")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'errata.db'}"
    else:
        with postgres_database() as url:
            yield url


@contextmanager
def new_store(kind: str, folder: Path) -> Iterator[Store]:
    """A store with its schema, head row and version 0."""
    with database(kind, folder) as url:
        upgrade(url)
        store = Store(url)
        try:
            wipe(store)
            yield store
        finally:
            store.close()


def wipe(store: Store) -> None:
    """Make a store new again: quicker than another database."""
    with store.write() as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not edit_transitions:
                connection.execute(sa.delete(table))
        cache_of(connection).clear()
        heads.create_or_check(connection, fingerprint="base", name="test", author="ann", now=NOW)
