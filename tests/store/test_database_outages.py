"""A database that does not answer: stopped, or locked by somebody else. Nobody waits for it without an end."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen

import pytest
import sqlalchemy as sa

from benchmarks.private_servers import freeze
from service.domain.edit import EditRequest
from service.domain.errors import Refused, Unavailable
from service.store import database, edits, heads, outage, postgres
from service.store.database import Store
from service.store.migrate import upgrade
from service.store.outage import DatabaseTimeout, Outage
from tests.servers import private_postgres
from tests.store.store_kinds import NOW, new_store
from tests.submission import submit
from tests.waiting import until

SHORT_S = 0.2
THAWED_S = 20.0  # a test of code that waits for a frozen server must not wait for ever itself


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, "Popen[bytes]"]]:
    with private_postgres() as found:
        yield found


@pytest.fixture
def store(server: tuple[str, "Popen[bytes]"], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(postgres, "ANSWER_S", SHORT_S)
    monkeypatch.setattr(postgres, "PING_S", SHORT_S)
    monkeypatch.setattr(postgres, "CONNECT_S", 2)  # the shortest that the driver takes
    monkeypatch.setattr(outage, "RETRY_S", 0.0)
    upgrade(server[0])
    made = Store(server[0])
    with made.write() as connection:
        if connection.execute(sa.text("SELECT count(*) FROM head")).scalar_one() == 0:
            heads.create_or_check(connection, fingerprint="base", name="test", author="ann", now=NOW)
    yield made
    made.close()


class Thaw:
    """A freeze that ends by itself; `lasts` says whether it has not."""

    def __init__(self, process: "Popen[bytes]") -> None:
        self._process, self._over = process, threading.Event()
        self._frozen = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)

    @property
    def lasts(self) -> bool:
        return self._frozen.is_set()

    def __enter__(self) -> "Thaw":
        self._thread.start()
        self._frozen.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _hold(self) -> None:
        with freeze(self._process):
            self._frozen.set()
            self._over.wait(THAWED_S)
        self._frozen.clear()


def head_of(store: Store) -> int:
    with store.read() as connection:
        return heads.read(connection).version


def post(store: Store, prompt: str, key: str) -> str:
    return submit(store, [EditRequest(prompt=prompt, target="x")], author="ann", idempotency_key=key).edits[0].id


def test_a_frozen_postgres_is_unavailable_before_it_thaws_and_then_used_again(
    store: Store, server: tuple[str, "Popen[bytes]"]
) -> None:
    assert head_of(store) == 0
    with Thaw(server[1]) as freeze:
        with pytest.raises(DatabaseTimeout, match="does not answer"):
            post(store, "frozen", "frozen")
        assert freeze.lasts
    assert head_of(store) == 0
    assert post(store, "thawed", "thawed") == post(store, "thawed", "thawed")


def test_a_write_frozen_before_its_commit_can_be_repeated_and_takes_effect_once(
    store: Store, server: tuple[str, "Popen[bytes]"]
) -> None:
    with pytest.raises(DatabaseTimeout), store.write() as connection:
        heads.lock(connection)
        with Thaw(server[1]) as freeze:
            try:
                connection.execute(sa.text("SELECT 1"))
            finally:
                assert freeze.lasts
    assert post(store, "once", "once") == post(store, "once", "once")
    with store.read() as connection:
        assert [edit.prompt for edit in edits.read_page(connection, limit=10)].count("once") == 1


def test_while_one_caller_probes_the_database_the_others_fail_at_once() -> None:
    known, inside, over = Outage(), threading.Event(), threading.Event()
    with pytest.raises(DatabaseTimeout), known.attempt():
        raise DatabaseTimeout("gone")
    known._next_probe = 0.0

    def find_out() -> str:
        with known.attempt():
            inside.set()
            over.wait(10)
            return "it answers"

    with ThreadPoolExecutor(1) as threads:
        finding = threads.submit(find_out)
        assert inside.wait(10)
        for _ in range(100):
            with pytest.raises(DatabaseTimeout), known.attempt():
                raise AssertionError("only one may ask")
        over.set()
        assert finding.result() == "it answers"
    with known.attempt():
        pass


def test_after_any_end_of_a_probe_another_caller_may_probe() -> None:
    known = Outage()
    for error in (DatabaseTimeout("gone"), Refused("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), known.attempt():
            raise error
        known._next_probe = 0.0
    with known.attempt():
        pass


def test_a_writer_that_gets_no_connection_does_not_start_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "STALLED_S", 0.01)
    with new_store("sqlite", tmp_path) as store:
        with pytest.raises(DatabaseTimeout), store._writing.attempt():
            raise DatabaseTimeout("it does not answer")
        store._writing._next_probe = 0.0  # the next probe is due
        for _ in range(database.WRITERS):
            store._writers.acquire()
        store._last_end = 0.0

        with pytest.raises(Unavailable, match="busy"), store.write():
            pass

        assert store._writing._is_active
        for _ in range(database.WRITERS):
            store._writers.release()
        with store.write():
            pass
        assert not store._writing._is_active


def test_writers_of_a_locked_sqlite_file_do_not_take_every_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "STALLED_S", 0.2)
    with new_store("sqlite", tmp_path) as store:
        other = sqlite3.connect(tmp_path / "errata.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(database.WRITERS + 8) as threads:
            writing = [threads.submit(post, store, f"p{n}", f"k{n}") for n in range(database.WRITERS + 8)]
            refused = until(lambda: sum(one.done() for one in writing) >= 8)
            stuck = sum(not one.done() for one in writing)
            assert head_of(store) == 0  # reading goes on
            other.execute("ROLLBACK")
        other.close()
        outcomes = [one.exception() for one in writing]

        assert refused and stuck <= database.WRITERS
        assert {type(one) for one in outcomes if one is not None} <= {Unavailable, DatabaseTimeout}
        assert outcomes.count(None) == stuck
        assert post(store, "after", "after")


def test_after_a_writer_timed_out_on_a_locked_file_others_fail_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    with new_store("sqlite", tmp_path) as store:
        other = sqlite3.connect(tmp_path / "errata.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseTimeout, match="busy"):
            post(store, "a", "a")
        asked: list[object] = []
        monkeypatch.setattr(store, "_in_turn", lambda: asked.append(1))
        with pytest.raises(DatabaseTimeout):
            post(store, "b", "b")
        monkeypatch.undo()

        assert (asked, head_of(store)) == ([], 0)
        other.execute("ROLLBACK")
        other.close()
        assert until(lambda: _written(store))


def _written(store: Store) -> bool:
    try:
        return bool(post(store, "c", "c"))
    except DatabaseTimeout:
        return False
