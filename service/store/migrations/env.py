"""Runs migrations for SQLite and Postgres alike; `service.store.migrate` passes the URL."""

import sqlalchemy as sa
from alembic import context

from service.store.tables import metadata

LOCK = 0x0E22A7A  # any number, the same for every server of the database

url = sa.engine.make_url(context.config.attributes["url"])
if url.get_backend_name() == "postgresql":
    url = url.set(drivername="postgresql+psycopg")
is_sqlite = url.get_backend_name() == "sqlite"
# By default sqlite3 commits before every change of a table. A process that ends half-way then leaves a schema of no revision: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#enabling-non-legacy-sqlite-transactional-modes
arguments = {"timeout": 30, "isolation_level": None} if is_sqlite else {"connect_timeout": 10}
engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
if is_sqlite:
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

with engine.begin() as connection:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
