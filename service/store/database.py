"""Engines and transactions. `read()` sees committed rows; `write()` is one transaction and the only place that commits.

Every error of the database itself is raised as Unavailable. No unacknowledged change is kept, so the caller may try again.
"""

import fcntl
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError

from service.domain.errors import Conflict, Refused, Unavailable
from service.store import live_set_cache
from service.store.clock import Clock, read_now
from service.store.connection_errors import NO_DRIVER, folder_error
from service.store.outage import DatabaseTimeout, Outage

BUSY_S = 10  # longest wait for SQLite's write lock
POOL = 24  # most connections of an engine; further callers wait
POOL_WAIT_S = 10
WRITERS = 16  # most writers that hold a connection; the rest of the pool is for readers
STALLED_S = 2.0  # seconds without the end of any transaction, after which no further writer waits
LOCK_NAME = "errata.lock"
AFTER_COMMIT = "errata_after_commit"  # in the info of a connection: what its transaction asks for
DAMAGED = ("not a database", "malformed")  # in SQLite's words
TRANSIENT = (OperationalError, InterfaceError, InternalError, sa.exc.TimeoutError)


class Store:
    """One database. Writers of one SQLite file take turns in this process, because SQLite's own waiting is unfair and slow."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            writer, reader = _sqlite_engine(self.url, writes=True), _sqlite_engine(self.url, writes=False)
        else:
            writer = _postgres_engine(self.url)
            reader = writer.execution_options(isolation_level="AUTOCOMMIT")
        memory = {live_set_cache.OPTION: live_set_cache.LiveSetCache()}
        self._writer, self._reader = writer.execution_options(**memory), reader.execution_options(**memory)
        self._reading = Outage()
        self._writing = Outage() if self.is_sqlite else self._reading  # a SQLite file that is locked can still be read
        self._writers = threading.BoundedSemaphore(WRITERS)
        self._last_end = time.monotonic()  # of any transaction
        self._turn = threading.Lock()
        self._folder_lock: TextIO | None = None
        self.clock: Callable[[], datetime] = Clock(self._read_clock)

    @property
    def folder(self) -> Path | None:
        """The folder of the SQLite file; None on Postgres and for a database in memory."""
        return Path(self.url.database).resolve().parent if self.is_sqlite and self.url.database else None

    def lock_folder(self) -> None:
        """Make this process the only server of a SQLite folder, until `close`. Raises Conflict if another server has the folder,
        Unavailable if the folder is not writable.

        The kernel releases the lock when the process ends, however it ends. On Postgres the fence has this task.
        """
        if self.folder is None or self._folder_lock is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / LOCK_NAME).open("a")
        except OSError as error:
            raise folder_error(error, "the folder of the database") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Conflict("another server is using the data folder; stop it, or give this one another data_dir") from None
        self._folder_lock = lock

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read committed rows. Each statement is its own transaction, so no writer waits for a reader. Raises Unavailable."""
        with self._reading.attempt(), _translated_errors(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back if the block raises. Raises Unavailable.

        What `after_commit` was given in the block is called after the commit, and never if there was none.
        """
        asked: list[Callable[[], None]] = []
        self._writing.peek()  # in an outage fail before waiting for a place among the writers
        # A writer without a place has not asked the database, so its error says nothing about an outage.
        with (
            self._among_writers(),
            self._writing.attempt(),
            _translated_errors(),
            self._in_turn(),
            self._writer.begin() as connection,
        ):
            connection.info[AFTER_COMMIT] = asked
            yield connection
        for call in asked:
            call()

    def scrub(self) -> tuple[str, ...]:
        """Rewrite a SQLite file from its rows, so that its free pages and its log hold no deleted data.

        Returns sentences about parts that could not be rewritten, for instance because of a reader. On Postgres this is the
        operator's task.
        """
        if not self.is_sqlite:
            return ()
        with self._writing.attempt(), _translated_errors(), self._in_turn():
            connection = self._writer.raw_connection()
            try:
                connection.cursor().execute("VACUUM")
                busy, _, _ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) and "busy" not in str(error) and "full" not in str(error):
                    raise
                return ("free pages of the SQLite file, which could not be rewritten now: purge again when the server is idle",)
            finally:
                connection.close()
        return (
            ("the write-ahead log of the SQLite file, which a reader held: purge again when the server is idle",) if busy else ()
        )

    def close(self) -> None:
        """Close every connection and release the folder."""
        self._writer.dispose()
        self._reader.dispose()
        if self._folder_lock is not None:
            self._folder_lock.close()
            self._folder_lock = None

    def _read_clock(self) -> datetime:
        if self.is_sqlite:
            return datetime.now(UTC)
        with self.read() as connection:
            return read_now(connection)

    @contextmanager
    def _among_writers(self) -> Iterator[None]:
        """Take a place among the WRITERS. Waits only while transactions end: stalled writers must not occupy every thread."""
        while not self._writers.acquire(timeout=STALLED_S / 4):
            if time.monotonic() - self._last_end > STALLED_S:
                raise Unavailable("The database is busy.")
        try:
            yield
        finally:
            self._last_end = time.monotonic()
            self._writers.release()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_S):
            raise DatabaseTimeout("The database is busy.")
        try:
            self._writing.check()  # the writer before may have found an outage
            yield
        finally:
            self._turn.release()


def after_commit(connection: Connection, call: Callable[[], None]) -> None:
    """Have something called once the transaction of a connection is committed, such as a log line about its changes."""
    connection.info[AFTER_COMMIT].append(call)


def database_clock(connection: Connection) -> sa.ColumnElement[float]:
    """Seconds since 1970 by the database's own clock, as an SQL expression. Leases use this clock alone."""
    if connection.dialect.name == "sqlite":
        return (sa.func.julianday("now") - 2440587.5) * 86400.0
    return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except TRANSIENT as error:
        raise (DatabaseTimeout if _is_silence(error) else Unavailable)(_sentence(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("The database closed the connection.") from error
        if isinstance(error.orig, sqlite3.DatabaseError) and any(word in str(error.orig) for word in DAMAGED):
            raise Unavailable("The database file is damaged or no database: restore it from a backup.") from error
        raise


def _is_silence(error: SQLAlchemyError) -> bool:
    """Whether the next caller would time out too: the server does not answer, or another process locks the file."""
    if isinstance(error, sa.exc.TimeoutError):  # no connection of the pool became free
        return True
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorcode == sqlite3.SQLITE_BUSY
    return type(cause).__name__ in ("AnswerTimeout", "ConnectionTimeout")  # the driver of Postgres need not be installed


def _sentence(error: SQLAlchemyError) -> str:
    text = str(getattr(error, "orig", error)).lower()
    if "did not answer" in text or "connection timeout" in text:
        return "The database does not answer."
    if "full" in text or "no space" in text:
        return "The database has no space left."
    if "readonly" in text:
        return "The database may not be written to."
    if "timeout" in text or "locked" in text or "busy" in text:
        return "The database is busy."
    return "The database cannot be reached."


def _sqlite_engine(url: sa.URL, *, writes: bool) -> Engine:
    engine = sa.create_engine(
        url,
        connect_args={"timeout": BUSY_S, "check_same_thread": False, "isolation_level": None},
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        poolclass=sa.QueuePool,
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_S * 1000}"):
            connection.execute(f"PRAGMA {pragma}")
        if not writes:
            connection.execute("PRAGMA query_only=ON")

    if writes:
        # A deferred transaction that reads first cannot always become a writer, and busy_timeout does not cover that case.
        @sa.event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: sa.URL) -> Engine:
    try:
        from service.store.postgres import postgres_engine  # its driver is an extra of the package
    except ImportError:
        raise Refused(NO_DRIVER, field="database_url") from None
    return postgres_engine(url, pool=POOL, pool_wait_s=POOL_WAIT_S)
