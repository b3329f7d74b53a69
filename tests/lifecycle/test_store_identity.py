"""A database and a data folder that do not belong together are refused, with both names, before either is touched."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.domain.errors import Conflict, Refused
from service.lifecycle.store_identity import adopt, check_database_exists, check_same_store, initialise_store
from service.lm.checkpoint_folder import MARK_FILE, CheckpointFolder
from service.lm.checkpoint_store import StoreMark
from service.store import heads
from service.store.database import Store
from service.store.migrate import upgrade
from tests.lifecycle.local_service import ARITHMETIC, LocalService, new_local_service
from tests.servers import postgres_database

KINDS = ("sqlite", "postgres")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[Store]:
    """A new, empty database."""
    if kind == "postgres":
        with postgres_database() as url:
            yield from opened(url)
    else:
        yield from opened(f"sqlite:///{folder}/errata.db")


def opened(url: str) -> Iterator[Store]:
    upgrade(url)
    store = Store(url)
    yield store
    store.close()


def found(store: Store, folder: Path) -> str:
    return initialise_store(store, fingerprint="base", name="ledger", checkpoints=CheckpointFolder(folder), arithmetic=ARITHMETIC)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_database_and_a_new_folder_get_one_store_id(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as store:
        name = found(store, tmp_path / "checkpoints")

        assert found(store, tmp_path / "checkpoints") == name
        check_same_store(store, CheckpointFolder(tmp_path / "checkpoints"))
        assert CheckpointFolder(tmp_path / "checkpoints").read_mark() == StoreMark(name, is_complete=True)
        with store.read() as connection:
            assert heads.read(connection).store_id == name


@pytest.mark.parametrize("kind", KINDS)
def test_another_stores_folder_is_refused_and_nothing_changes(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as store:
        name = found(store, tmp_path / "ours")
        other = found_by_itself(tmp_path / "theirs")
        (tmp_path / "new").mkdir()
        with store.read() as connection:
            before = heads.read(connection)

        with pytest.raises(Conflict, match=f"of store {other}.*of store {name}"):
            found(store, tmp_path / "theirs")
        with pytest.raises(Conflict, match=f"of store {name}"):
            found(store, tmp_path / "new")
        with pytest.raises(Conflict, match=f"of store {name}"):
            check_same_store(store, CheckpointFolder(tmp_path / "not there"))

        assert list((tmp_path / "new").iterdir()) == [] and not (tmp_path / "not there").exists()
        assert CheckpointFolder(tmp_path / "theirs").read_mark() == StoreMark(other, is_complete=True)
        with store.read() as connection:
            assert heads.read(connection) == before


def found_by_itself(folder: Path) -> str:
    """A folder of another store."""
    folder.mkdir()
    CheckpointFolder(folder).write_mark(StoreMark("another-store", is_complete=True))
    return "another-store"


def test_an_empty_database_beside_checkpoints_is_refused(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    local.live(("a", "1"))
    local.close()
    files = sorted(path.name for path in local.folder.iterdir())
    for name in ("errata.db", "errata.db-wal", "errata.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "errata.db").touch()  # a file of no bytes is an empty database to SQLite
    upgrade(local.url)

    with pytest.raises(Conflict, match=r"the database is empty.*restore the database"):
        local.again()

    (local.folder / MARK_FILE).unlink()
    with pytest.raises(Conflict, match="the database is empty"):
        local.again()
    assert sorted(path.name for path in local.folder.iterdir()) == [name for name in files if name != MARK_FILE]


@pytest.mark.parametrize("left", [None, b""])
def test_no_empty_sqlite_file_replaces_a_lost_one(left: bytes | None, tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    local.live(("a", "1"))
    local.close()
    for path in tmp_path.glob("errata.db*"):
        path.unlink()
    if left is not None:
        (tmp_path / "errata.db").write_bytes(left)
    store = Store(local.url)

    with pytest.raises(Conflict, match="the database is empty"):
        check_database_exists(store, local.checkpoints)

    store.close()
    assert [path.stat().st_size for path in tmp_path.glob("errata.db*")] == ([] if left is None else [0])


def test_a_first_start_killed_between_folder_and_database_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database("sqlite", tmp_path) as store:

        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(heads, "create_or_check", die)
            with pytest.raises(KeyboardInterrupt):
                found(store, tmp_path / "checkpoints")
        begun = CheckpointFolder(tmp_path / "checkpoints").read_mark()
        assert begun is not None and not begun.is_complete
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointFolder, "write_mark", die)  # and again, between the database and the last word in the folder
            with pytest.raises(KeyboardInterrupt):
                found(store, tmp_path / "checkpoints")

        assert found(store, tmp_path / "checkpoints") == begun.store_id
        assert CheckpointFolder(tmp_path / "checkpoints").read_mark() == StoreMark(begun.store_id, is_complete=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_without_an_id_accepts_the_folder_that_holds_its_heads_checkpoint(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as store:
        local = LocalService(store.url.render_as_string(hide_password=False), tmp_path / "checkpoints")
        local.live(("a", "1"))
        local.close()
        (local.folder / MARK_FILE).unlink()
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE head SET store_id = NULL")
        (tmp_path / "other").mkdir()

        with pytest.raises(Conflict, match="the checkpoint of version 1"):
            service_in(local, tmp_path / "other")
        again = service_in(local, local.folder)

        assert again.says("a") == "1"
        mark = CheckpointFolder(local.folder).read_mark()
        with again.store.read() as connection:
            assert mark is not None and mark.is_complete and mark.store_id == heads.read(connection).store_id
        again.close()


def service_in(local: LocalService, folder: Path) -> LocalService:
    return LocalService(local.url, folder, ledger=local.ledger, settings=local.settings)


def test_a_folder_that_was_restored_without_its_mark_is_adopted_on_request_only(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    local.live(("a", "1"))
    (local.folder / MARK_FILE).unlink()
    with pytest.raises(Conflict, match="errata adopt"):
        local.again()

    store = Store(local.url)
    adopt(store, CheckpointFolder(local.folder))
    store.close()
    again = local.again()

    assert again.says("a") == "1" and again.opened.degraded is None
    again.close()


def test_adopting_a_new_folder_for_a_lost_one_applies_its_edits_again(tmp_path: Path) -> None:
    local = new_local_service(tmp_path)
    made = local.live(("a", "1"), ("b", "2"))
    local.folder.rename(tmp_path / "lost")
    store = Store(local.url)
    adopt(store, CheckpointFolder(local.folder))
    store.close()

    again = local.again()
    assert again.opened.version == 0 and again.opened.degraded
    again.roll_back(0, requeue=True)
    again.worker.drain()

    assert [status.is_live for status in again.statuses(made)] == [True, True]
    assert (again.says("a"), again.says("b")) == ("1", "2")
    again.close()


def test_an_empty_database_adopts_nothing(tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as store:
        with pytest.raises(Refused, match="the database is empty"):
            adopt(store, CheckpointFolder(tmp_path / "checkpoints"))
