"""Migrations of stores that hold something: cut off anywhere they are as if they had not begun, and what stops one is named."""

import re
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from service.domain.errors import KeyReused, Refused, Unavailable
from service.store import edits, idempotency, migrate, stated_edits
from service.store.connection_errors import explain_connection_error
from service.store.database import Store
from service.store.idempotency import KeyedRequest
from service.store.tables import metadata
from tests.store.store_kinds import KINDS, database, new_store

CUTS = 6
EDIT = """
INSERT INTO edits (id, seq, status, prompt, target, key_digest, method, surfaces, probes, metadata, author, created_at, version,
  scores_due, restore_previous)
VALUES ('edit-1', 1, 'applied', 'p', 'x', 'k', 'auto', '["raw"]', '{}', '{}', 'ann', '2026-01-02', 1, 0, 0)
"""
VERSION = """
INSERT INTO versions (number, kind, status, parent, scores, edits_counted, window_count, pinned, author, created_at)
VALUES (0, 'base', 'published', NULL, '{}', 0, 0, 1, 'ann', '2026-01-01'),
  (1, 'baft', 'published', 0, '{}', 1, 1, 0, 'ann', '2026-01-02')
"""
HELD = "INSERT INTO version_edits (version, edit_id, carrier, role, held) VALUES (1, 'edit-1', 'window', 'live', 0)"


def old_store(folder: Path) -> Path:
    """A SQLite file as the first release made it, with an edit that is live."""
    file = folder / "errata.db"
    command.upgrade(migrate.configuration(f"sqlite:///{file}"), "0001")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in (EDIT, VERSION, HELD):
            connection.execute(statement)
    connection.close()
    return file


def left_on_the_disk(file: Path, folder: Path) -> Path:
    """A copy of what another process would find if this one ended now."""
    folder.mkdir()
    for path in file.parent.glob(f"{file.name}*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, folder)
    return folder / file.name


def test_an_interrupted_upgrade_of_a_sqlite_file_is_completed_by_the_next_one(tmp_path: Path) -> None:
    statements: list[str] = []

    def note(connection: object, cursor: object, sql: str, *_: object) -> None:
        statements.append(sql)

    (tmp_path / "first").mkdir()
    file = old_store(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        migrate.upgrade(f"sqlite:///{file}")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    writes = [index for index, sql in enumerate(statements) if not sql.lstrip().startswith(("PRAGMA", "SELECT"))]
    cuts = {writes[len(writes) * part // CUTS + 1]: tmp_path / f"cut-{part}" for part in range(CUTS)}
    copies: list[Path] = []
    count = iter(range(10_000))

    def cut(connection: object, cursor: object, sql: str, *_: object) -> None:
        if (folder := cuts.get(next(count))) is not None:
            copies.append(left_on_the_disk(tmp_path / "second" / "errata.db", folder))

    sa.event.listen(sa.Engine, "before_cursor_execute", cut)
    try:
        migrate.upgrade(f"sqlite:///{tmp_path}/second/errata.db")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", cut)

    assert len(copies) == CUTS
    for copy in copies:
        migrate.upgrade(f"sqlite:///{copy}")
        with sqlite3.connect(copy) as connection:
            assert connection.execute("SELECT version, edit_id, present FROM version_edits").fetchall() == [(1, "edit-1", 1)]
        connection.close()
        store = Store(f"sqlite:///{copy}")
        with store.read() as read:
            assert migrate.is_current(read)
        store.close()


def test_an_upgrade_says_that_another_process_uses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = old_store(tmp_path)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **{**named, "timeout": 0}))
    monkeypatch.setattr(sqlite3.dbapi2, "connect", sqlite3.connect)

    with pytest.raises(Unavailable, match="another process is using it"):
        migrate.upgrade(f"sqlite:///{file}")

    other.close()


def test_an_upgrade_says_that_the_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "errata.db").write_text("not a database " * 100)

    with pytest.raises(Unavailable, match="damaged or no database"):
        migrate.upgrade(f"sqlite:///{tmp_path}/errata.db")


def test_a_missing_database_is_not_reported_as_damaged(tmp_path: Path) -> None:
    with database("postgres", tmp_path) as url, pytest.raises(Unavailable, match="does not exist: make it") as caught:
        migrate.upgrade(f"{url}_not_there")
    assert "_not_there" not in caught.value.message


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ('FATAL:  password authentication failed for user "ann"', "refuses the user or the password"),
        ('FATAL:  role "ann" does not exist', "refuses the user or the password"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "ann"', "connections from this machine"),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", "host of database_url is not known"),
        ('connection to server at "127.0.0.1", port 1 failed: Connection refused', "nothing listens"),
        ("connection timeout expired", "does not answer"),
        ("FATAL:  sorry, too many clients already", "no connection left"),
        ("FATAL:  the database system is starting up", "try again in a moment"),
        ('invalid connection option "foo"', "an option that is not known"),
        ('relation "edits" does not exist', None),
        ("no such table: edits", None),
    ],
)
def test_a_connection_error_is_explained_without_the_driver_s_words(said: str, understood: str | None) -> None:
    found = explain_connection_error(RuntimeError(said))
    assert found is understood if understood is None or found is None else understood in found


def test_an_unknown_host_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="host of database_url is not known"):
        migrate.upgrade("postgresql://ann:secret@no-such-host.invalid/errata")


def test_a_missing_driver_is_reported_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("service.store.postgres",):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for open_it in (Store, migrate.upgrade):
        with pytest.raises(Refused, match="pip install"):
            open_it("postgresql://ann@127.0.0.1/errata")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_from_before_calls_were_stored_still_returns_its_edits(kind: str, tmp_path: Path) -> None:
    key = "INSERT INTO idempotency_keys (author, key, body_hash, answer, created_at) VALUES ('ann', 'k', 'h', '{}', '2026-01-02')"
    with database(kind, tmp_path) as url:
        command.upgrade(migrate.configuration(url), "0003")
        store = Store(url)
        with store.write() as connection:
            connection.execute(sa.text(key.replace("{}", '{"edits"\\:[["edit-1",false]]}')))

        migrate.upgrade(url)

        with store.read() as connection:
            answer = idempotency.recall(connection, KeyedRequest("ann", "edits", "k", "h"))
            with pytest.raises(KeyReused):
                idempotency.recall(connection, KeyedRequest("ann", "rollback", "k", "h"))
        with store.write() as connection:  # a server of the release before, beside this one
            connection.execute(sa.text(key.replace("'k'", "'k2'")))
            assert idempotency.recall(connection, KeyedRequest("ann", "edits", "k2", "h")) == {}
        store.close()

    assert answer == {"edits": [["edit-1", False]]}


@pytest.mark.parametrize("kind", KINDS)
def test_of_edits_from_before_deferrals_were_kept_nothing_is_known_and_they_were_judged(kind: str, tmp_path: Path) -> None:
    edit = (EDIT if kind == "sqlite" else EDIT.replace("1, 0, 0)", "1, false, false)")).replace("'applied'", "'deferred'")
    with database(kind, tmp_path) as url:
        command.upgrade(migrate.configuration(url), "0010")
        store = Store(url)
        with store.write() as connection:
            connection.execute(sa.text(edit))

        migrate.upgrade(url)

        with store.read() as connection:
            found = edits.get(connection, "edit-1")
        assert (found.deferral, found.accept, found.accepted_anyway) == (None, "judged", False)
        for change in ("accept = 'always'", "status = 'queued'"):
            with pytest.raises((sa.exc.IntegrityError, sa.exc.DatabaseError)), store.write() as connection:
                connection.execute(sa.text(f"UPDATE edits SET {change}"))
        with store.write() as connection:  # a server of the release before, beside this one
            connection.execute(sa.text(edit.replace("edit-1", "edit-2").replace("'edit-2', 1", "'edit-2', 2")))
        store.close()
        command.downgrade(migrate.configuration(url), "0010")
        migrate.upgrade(url)


@pytest.mark.parametrize("kind", KINDS)
def test_edits_from_before_there_was_a_scope_have_the_default_and_no_aliases(kind: str, tmp_path: Path) -> None:
    edit = EDIT if kind == "sqlite" else EDIT.replace("1, 0, 0)", "1, false, false)")
    with database(kind, tmp_path) as url:
        command.upgrade(migrate.configuration(url), "0012")
        store = Store(url)
        with store.write() as connection:
            connection.execute(sa.text(edit))

        migrate.upgrade(url)

        with store.read() as connection:
            found = edits.get(connection, "edit-1")
        assert (found.scope, found.aliases) == ("auto", ())
        for change in ("scope = 'never'", "status = 'queued'"):
            with pytest.raises((sa.exc.IntegrityError, sa.exc.DatabaseError)), store.write() as connection:
                connection.execute(sa.text(f"UPDATE edits SET {change}"))
        with store.write() as connection:  # a server of the release before, beside this one
            connection.execute(sa.text(edit.replace("edit-1", "edit-2").replace("'edit-2', 1", "'edit-2', 2")))
        with store.read() as connection:
            assert edits.get(connection, "edit-2").aliases == ()
        store.close()
        command.downgrade(migrate.configuration(url), "0012")
        migrate.upgrade(url)


@pytest.mark.parametrize("kind", KINDS)
def test_versions_from_before_there_was_a_context_tier_state_nothing(kind: str, tmp_path: Path) -> None:
    edit = EDIT if kind == "sqlite" else EDIT.replace("1, 0, 0)", "1, false, false)")
    version = """INSERT INTO versions (number, kind, status, parent, scores, edits_counted, window_count, pinned, root, minors,
      author, created_at) VALUES (0, 'base', 'published', NULL, '{}', 0, 0, true, 0, 0, 'ann', '2026-01-01')"""
    with database(kind, tmp_path) as url:
        command.upgrade(migrate.configuration(url), "0013")
        store = Store(url)
        with store.write() as connection:
            connection.execute(sa.text(edit))
            connection.execute(sa.text(version))

        migrate.upgrade(url)

        with store.write() as connection:
            assert (stated_edits.read(connection, 0), stated_edits.read_withdrawn(connection, 0)) == ((), frozenset())
            stated_edits.insert(connection, 0, ["edit-1"])
            # A server of the release before, beside this one, publishes.
            connection.execute(sa.text(version.replace("(0, 'base', 'published', NULL", "(1, 'baft', 'published', 0")))
        with pytest.raises((sa.exc.IntegrityError, sa.exc.DatabaseError)), store.write() as connection:
            stated_edits.insert(connection, 1, ["no-edit"])
        store.close()
        command.downgrade(migrate.configuration(url), "0013")
        migrate.upgrade(url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_of_a_newer_release_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        migrate.upgrade(url)
        store = Store(url)
        with store.write() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

        with pytest.raises(Unavailable, match="newer release"):
            migrate.upgrade(url)
        with store.read() as connection, pytest.raises(Unavailable, match="newer release"):
            migrate.is_current(connection)

        store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_searching_an_edit_in_all_versions_reads_no_other_rows(kind: str, tmp_path: Path) -> None:
    looking = "SELECT version FROM version_edits WHERE edit_id IN ('a', 'b')"
    with new_store(kind, tmp_path) as store, store.write() as connection:
        if kind == "postgres":  # it would read an empty table whole
            connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN " if kind == "sqlite" else "EXPLAIN "
        plan = " ".join(str(row) for row in connection.execute(sa.text(explain + looking)))

    assert "ix_version_edits_edit_id" in plan


def schema_of(url: str) -> dict[str, object]:
    """Columns, constraints and indexes of all tables. Expressions are compared without spaces, brackets and casts."""

    def plain(text: object) -> str:
        return re.sub(r"::[a-z ]+(\[\])?|[\s()]", "", str(text)).lower()

    store = Store(url)
    with store.read() as connection:
        inspector = sa.inspect(connection)
        found = {
            table: {
                "columns": {
                    column["name"]: (plain(column["type"]), column["nullable"]) for column in inspector.get_columns(table)
                },
                "checks": {check["name"]: plain(check["sqltext"]) for check in inspector.get_check_constraints(table)},
                "uniques": {tuple(unique["column_names"]) for unique in inspector.get_unique_constraints(table)},
                "indexes": {
                    (
                        index["name"],
                        tuple(index["column_names"]),
                        bool(index["unique"]),
                        plain(sorted((n, str(v)) for n, v in index["dialect_options"].items())),
                    )
                    for index in inspector.get_indexes(table)
                },
            }
            for table in sorted(inspector.get_table_names())
            if table != "alembic_version"
        }
    store.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_all_migrations_together_give_the_tables_as_they_are_declared(kind: str, tmp_path: Path) -> None:
    for folder in ("declared", "migrated"):
        (tmp_path / folder).mkdir()
    with database(kind, tmp_path / "declared") as declared, database(kind, tmp_path / "migrated") as migrated:
        store = Store(declared)
        with store.write() as connection:
            metadata.create_all(connection)
        store.close()
        migrate.upgrade(migrated)

        assert schema_of(migrated) == schema_of(declared)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_from_before_methods_were_registered_opens_with_all_its_rules(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        command.upgrade(migrate.configuration(url), "0006")
        store = Store(url)
        edit = EDIT if kind == "sqlite" else EDIT.replace("1, 0, 0)", "1, false, false)")
        with store.write() as connection:
            connection.execute(sa.text(edit.replace("'auto'", "'locft'")))
            for job, status in (("old", "running"), ("new", "queued")):
                connection.execute(
                    sa.text(f"""
INSERT INTO jobs (id, kind, status, mode, log, edit_ids, claims, failures, progress, author, created_at)
VALUES ('{job}', 'retrain', '{status}', 'major', '[]', '[]', 0, 0, 0, 'ann', '2026-01-02')""")
                )

        migrate.upgrade(url)

        with store.read() as connection:
            methods = dict(connection.execute(sa.text("SELECT id, method FROM jobs")).all())
            assert connection.execute(sa.text("SELECT method, status FROM edits")).one() == ("locft", "applied")
        assert methods == {"old": "locft", "new": None}  # a queued retrain has not chosen yet
        for change in (
            "method = 'LoRA'",
            "method = ''",
            "method = '1st'",
            "method = 'a-b'",
            "status = 'gone'",
            "status = 'queued'",
        ):
            with pytest.raises((sa.exc.IntegrityError, sa.exc.DatabaseError)), store.write() as connection:
                connection.execute(sa.text(f"UPDATE edits SET {change}"))
        with store.write() as connection:
            connection.execute(sa.text("UPDATE edits SET method = 'a_new_method_16'"))
        store.close()
