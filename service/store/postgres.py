"""Connections to Postgres with a timeout on this side.

A stopped server or a network that drops packets reports no error. The server's own time limits do not run while it is stopped,
and its kernel still acknowledges the packets.
"""

from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors
from sqlalchemy.engine import Engine

STATEMENT_MS = 5_000  # longest statement, and longest wait for a row lock; the server enforces it
IDLE_MS = 30_000  # longest pause within a transaction
ANSWER_S = 7.0  # longest wait for a server that should have ended a statement by itself
PING_S = 2.0  # longest wait for the ping of a pooled connection
CONNECT_S = 3


class AnswerTimeout(psycopg.OperationalError):
    """The server did not answer in time. The connection is closed, because a later answer would belong to an old statement."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection on which no call takes longer than `patience_s`."""

    patience_s = ANSWER_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Consume a generator of psycopg, as all its calls do."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except errors._WaitTimeout:
            self.pgconn.finish()
            raise AnswerTimeout("the server did not answer in time") from None


def postgres_engine(url: sa.URL, *, pool: int, pool_wait_s: float) -> Engine:
    """An engine with a timeout on each step: to connect, to ping a pooled connection, to run a statement, to get a connection."""
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
    def _connect(_dialect: Any, _record: Any, arguments: Any, keywords: Any) -> TimedConnection:
        return TimedConnection.connect(*arguments, **keywords)

    @sa.event.listens_for(engine, "checkin")
    def _ping_comes_next(connection: TimedConnection | None, _record: Any) -> None:
        if connection is not None:
            connection.patience_s = PING_S

    @sa.event.listens_for(engine, "checkout")
    def _statements_come_next(connection: TimedConnection, _record: Any, _fairy: Any) -> None:
        connection.patience_s = ANSWER_S

    return engine
