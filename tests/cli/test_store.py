"""The commands that open a store themselves. None of them starts a server or moves a head, whatever folder it is given."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from service.cli import options
from service.cli.main import app
from service.cli.options import FAILED, USAGE
from service.client.local_server import LocalServer
from service.domain.errors import Conflict
from service.lm.checkpoint_folder import MARK_FILE
from service.runtime.assembly import open_server
from service.store import events, versions
from service.store.database import Store
from tests.api.live_server import LiveServer, tiny_settings
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """No log lines either: a server in this process would write into the output of the commands."""
    monkeypatch.setattr(options, "configure_logging", lambda level: None)

    def refuse(_: LocalServer) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(LocalServer, "start", refuse)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    service = new_local_service(tmp_path)
    service.live(("a", "1"), ("b", "2"))
    yield service
    service.close()


def run(local: LocalService, *arguments: str) -> Result:
    return runner.invoke(app, [*arguments, "--data-dir", str(local.folder.parent)])


def file_of(local: LocalService, number: int) -> Path:
    return local.folder / f"{local.versions()[number].digest}.safetensors"


def store_contents(local: LocalService) -> list[Any]:
    """The rows and file names that a reading command must not change."""
    with local.store.read() as connection:
        rows = [asdict(version) for version in versions.read_page(connection, limit=100)]
        return [rows, events.read_page(connection, limit=100), sorted(path.name for path in local.folder.iterdir())]


def test_jobs_are_read_from_the_database_beside_a_running_server(server: LiveServer) -> None:
    server.edit("The colour of moss is", "green")
    folder = str(server.state.settings.data_dir)

    result = runner.invoke(app, ["jobs", "--all", "--json", "--data-dir", folder])

    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    assert [job["kind"] for job in listed] == ["apply"]
    assert listed == [server.client.get(f"/jobs/{listed[0]['id']}").json() | {"seconds_left": None}]


def test_jobs_with_a_foreign_folder_change_nothing_in_the_database(tmp_path: Path) -> None:
    with postgres_database() as url:
        from service.store.migrate import upgrade

        upgrade(url)
        local = LocalService(url, tmp_path / "ours" / "checkpoints")
        local.live(("a", "1"))
        before = store_contents(local)

        result = runner.invoke(app, ["jobs", "--all", "--database-url", url, "--data-dir", str(tmp_path / "strange")])

        assert result.exit_code == 0, result.output
        assert "apply" in result.output
        assert store_contents(local) == before and local.says("a") == "1"
        assert not (tmp_path / "strange").exists()
        local.close()


@pytest.mark.parametrize("command", [["doctor"], ["versions", "verify"], ["jobs"], ["migrate"]], ids=lambda words: words[0])
def test_every_command_says_that_a_newer_release_made_the_store(tmp_path: Path, command: list[str]) -> None:
    from service.store.migrate import upgrade

    url = f"sqlite:///{tmp_path / 'errata.db'}"
    upgrade(url)
    store = Store(url)
    with store.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()

    result = runner.invoke(app, [*command, "--data-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert "newer release" in " ".join(result.output.split())


def test_a_server_with_a_foreign_folder_is_refused_before_it_loads_a_model(tmp_path: Path, tiny_model: Path) -> None:
    with postgres_database() as url:
        from service.store.migrate import upgrade

        upgrade(url)
        local = LocalService(url, tmp_path / "ours" / "checkpoints")
        local.live(("a", "1"))
        before = store_contents(local)
        settings = tiny_settings(tiny_model / "is not even read", tmp_path / "strange", database_url=url)

        with pytest.raises(Conflict, match="give the data_dir that belongs to this database"), open_server(settings):
            pass

        assert store_contents(local) == before and local.says("a") == "1"
        assert not (tmp_path / "strange" / "checkpoints").exists()
        local.close()


def test_a_queued_job_is_cancelled_without_a_server(local: LocalService) -> None:
    job = local.retrain()

    result = run(local, "jobs", "--cancel", job.id, "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["status"] == "cancelled"
    assert run(local, "jobs", "--cancel", job.id).exit_code == 0  # a repeated cancellation has no effect
    assert run(local, "jobs", "--cancel", "../edits").exit_code == FAILED


def test_a_missing_database_is_not_created(tmp_path: Path) -> None:
    for arguments in (["jobs"], ["versions", "verify"], ["adopt", "--yes"]):
        result = runner.invoke(app, [*arguments, "--data-dir", str(tmp_path / "new")])

        assert result.exit_code == FAILED
        assert "there is no database yet" in result.stderr
    assert not (tmp_path / "new").exists()


def test_an_unknown_kind_of_job_is_wrong_usage(local: LocalService) -> None:
    result = run(local, "jobs", "--kind", "fit")

    assert result.exit_code == USAGE
    assert "apply, refit, retrain, export" in result.output


def test_versions_are_verified_without_a_change(local: LocalService) -> None:
    before = store_contents(local)

    result = run(local, "versions", "verify")

    assert result.exit_code == 0, result.output
    assert "2 of 2 checkpoints are good" in result.output
    assert store_contents(local) == before


def test_damaged_missing_and_trashed_checkpoints_are_distinguished(local: LocalService) -> None:
    local.live(("c", "3"))
    file_of(local, 1).write_bytes(b"damaged")
    file_of(local, 2).unlink()
    trash = local.folder / "trash"
    trash.mkdir()
    file_of(local, 3).rename(trash / file_of(local, 3).name)
    (local.folder / "notes.txt").touch()

    result = run(local, "versions", "verify", "--json")

    report = json.loads(result.stdout)
    assert result.exit_code == FAILED
    assert {checkpoint["versions"][0]: checkpoint["state"] for checkpoint in report["checkpoints"]} == {
        1: "damaged",
        2: "unreadable here",
        3: "in the trash",
    }
    assert report["unnamed"] == ["notes.txt"]


def test_versions_marked_corrupt_by_mistake_are_healed_on_request(local: LocalService) -> None:
    with local.store.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET status = 'corrupt' WHERE number = 1")

    verified = run(local, "versions", "verify")
    assert verified.exit_code == FAILED and "the database calls 1 corrupt" in verified.output

    healed = run(local, "versions", "verify", "--heal")
    assert healed.exit_code == 0, healed.output
    assert "Not corrupt any more: 1" in healed.output
    assert local.roll_back(1).restored == 1


def test_a_folder_without_a_mark_is_adopted_after_a_question(local: LocalService) -> None:
    (local.folder / MARK_FILE).unlink()
    file_of(local, 2).unlink()
    local.close()

    declined = runner.invoke(app, ["adopt", "--data-dir", str(local.folder.parent)], input="n\n")
    assert declined.exit_code == FAILED and not (local.folder / MARK_FILE).exists()

    result = run(local, "adopt", "--yes")
    assert result.exit_code == 0, result.output
    assert "holds 1 of the 2 checkpoints" in result.output and '"requeue": true' in result.output
    reopened = local.again()
    assert reopened.says("a") == "1" and "version 2" in str(reopened.opened.degraded)
    reopened.close()


def test_the_doctor_reports_a_database_and_a_folder_of_different_stores(local: LocalService, tmp_path: Path) -> None:
    told = run(local, "doctor").output
    assert "belong together" in told and "a start refuses" in told  # the settings name another model than the store's
    (local.folder / MARK_FILE).write_text('{"store": "another", "founded": true}')
    local.close()

    foreign = run(local, "doctor")
    for path in tmp_path.glob("errata.db*"):
        path.unlink()
    lost = run(local, "doctor")

    assert foreign.exit_code == FAILED and "of store another" in foreign.output
    assert lost.exit_code == FAILED and "its database is not there" in lost.output


def test_a_file_that_is_no_database_is_one_sentence_in_every_command(tmp_path: Path) -> None:
    (tmp_path / "errata.db").write_bytes(b"no database " * 1_000)
    for arguments in (["jobs"], ["versions", "verify"], ["adopt", "--yes"], ["doctor"]):
        result = runner.invoke(app, [*arguments, "--data-dir", str(tmp_path)])

        assert result.exit_code == FAILED, arguments
        assert "damaged or no database" in result.output + result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit)
