"""Connections to Postgres that give up by themselves. A server that is stopped, or a network that drops what is sent, never says
that it will not answer; its own time limits do not run while it is stopped, and the kernel goes on acknowledging what it is sent.
"""

from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors
from sqlalchemy.engine import Engine

STATEMENT_MS = 5_000  # longest statement, and longest wait for a row lock: kept by the server
IDLE_MS = 30_000  # longest pause within a transaction
ANSWER_S = 7.0  # after which a server that should have ended a statement by itself is not waited for
PING_S = 2.0  # the same for the question whether a connection that lay in the pool still works
CONNECT_S = 3


class AnswerTimeout(psycopg.OperationalError):
    """The server did not answer in time. The connection is closed, for whatever comes on it now answers an old question."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection on which no call takes longer than `patience_s`."""

    patience_s = ANSWER_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Consume a generator of psycopg's, as all calls do."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except errors._WaitTimeout:
            self.pgconn.finish()
            raise AnswerTimeout("the server did not answer in time") from None


def postgres_engine(url: sa.URL, *, pool: int, pool_wait_s: float) -> Engine:
    """An engine whose every step has an end: to connect, to try a pooled connection, to run a statement, to get a connection."""
    timeouts = (
        f"-c statement_timeout={STATEMENT_MS} -c lock_timeout={STATEMENT_MS} -c idle_in_transaction_session_timeout={IDLE_MS}"
    )
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"options": timeouts, "connect_timeout": CONNECT_S, "application_name": "errata"},
        pool_size=pool,
        max_overflow=0,
        pool_timeout=pool_wait_s,
        pool_pre_ping=True,
        pool_recycle=1800,
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, given: Any, named: Any) -> TimedConnection:
        return TimedConnection.connect(*given, **named)

    @sa.event.listens_for(engine, "checkin")
    def _ping_comes_next(connection: TimedConnection | None, _record: Any) -> None:
        if connection is not None:
            connection.patience_s = PING_S

    @sa.event.listens_for(engine, "checkout")
    def _statements_come_next(connection: TimedConnection, _record: Any, _fairy: Any) -> None:
        connection.patience_s = ANSWER_S

    return engine
