"""The commands that look into a store themselves. None of them starts a server or moves a head, whatever folder it is given."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import options
from service.cli.main import app
from service.cli.options import FAILED, USAGE
from service.client.local_server import LocalServer
from service.domain.errors import Conflict
from service.lifecycle.store_identity import MARK
from service.runtime.assembly import open_server
from service.store import events, versions
from tests.api.live_server import LiveServer, tiny_settings
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may run in the process of the commands here, and would write into what they print."""
    monkeypatch.setattr(options, "configure_logging", lambda level: None)

    def refuse(_: LocalServer) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(LocalServer, "start", refuse)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalService]:
    made = new_local_service(tmp_path)
    made.live(("a", "1"), ("b", "2"))
    yield made
    made.close()


def run(local: LocalService, *arguments: str) -> Result:
    return runner.invoke(app, [*arguments, "--data-dir", str(local.folder.parent)])


def file_of(local: LocalService, number: int) -> Path:
    return local.folder / f"{local.versions()[number].digest}.safetensors"


def everything(local: LocalService) -> list[Any]:
    """What a command that only looks must leave as it is."""
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


def test_jobs_with_a_strange_folder_touch_nothing_of_the_database(tmp_path: Path) -> None:
    with postgres_database() as url:
        from service.store.migrate import upgrade

        upgrade(url)
        local = LocalService(url, tmp_path / "ours" / "checkpoints")
        local.live(("a", "1"))
        before = everything(local)

        result = runner.invoke(app, ["jobs", "--all", "--database-url", url, "--data-dir", str(tmp_path / "strange")])

        assert result.exit_code == 0, result.output
        assert "apply" in result.output
        assert everything(local) == before and local.says("a") == "1"
        assert not (tmp_path / "strange").exists()
        local.close()


def test_a_second_server_with_another_folder_is_refused_before_it_loads_a_model(tmp_path: Path, tiny_model: Path) -> None:
    with postgres_database() as url:
        from service.store.migrate import upgrade

        upgrade(url)
        local = LocalService(url, tmp_path / "ours" / "checkpoints")
        local.live(("a", "1"))
        before = everything(local)
        settings = tiny_settings(tiny_model / "is not even looked at", tmp_path / "strange", database_url=url)

        with pytest.raises(Conflict, match="give the data_dir that belongs to this database"), open_server(settings):
            pass

        assert everything(local) == before and local.says("a") == "1"
        assert not (tmp_path / "strange" / "checkpoints").exists()
        local.close()


def test_a_job_that_waits_is_cancelled_without_a_server(local: LocalService) -> None:
    job = local.retrain()

    result = run(local, "jobs", "--cancel", job.id, "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["status"] == "cancelled"
    assert run(local, "jobs", "--cancel", job.id).exit_code == 0  # to ask twice is to ask once
    assert run(local, "jobs", "--cancel", "../edits").exit_code == FAILED


def test_where_there_is_no_database_none_is_made(tmp_path: Path) -> None:
    for arguments in (["jobs"], ["versions", "verify"], ["adopt", "--yes"]):
        result = runner.invoke(app, [*arguments, "--data-dir", str(tmp_path / "new")])

        assert result.exit_code == FAILED
        assert "there is no database yet" in result.stderr
    assert not (tmp_path / "new").exists()


def test_an_unknown_kind_of_job_is_wrong_usage(local: LocalService) -> None:
    result = run(local, "jobs", "--kind", "fit")

    assert result.exit_code == USAGE
    assert "apply, refit, retrain, export" in result.output


def test_versions_are_verified_and_nothing_is_changed(local: LocalService) -> None:
    before = everything(local)

    result = run(local, "versions", "verify")

    assert result.exit_code == 0, result.output
    assert "2 of 2 checkpoints are good" in result.output
    assert everything(local) == before


def test_what_is_damaged_missing_or_in_the_trash_is_told_apart(local: LocalService) -> None:
    local.live(("c", "3"))
    file_of(local, 1).write_bytes(b"damaged")
    file_of(local, 2).unlink()
    trash = local.folder / "trash"
    trash.mkdir()
    file_of(local, 3).rename(trash / file_of(local, 3).name)
    (local.folder / "notes.txt").touch()

    result = run(local, "versions", "verify", "--json")

    found = json.loads(result.stdout)
    assert result.exit_code == FAILED
    assert {one["versions"][0]: one["state"] for one in found["checkpoints"]} == {
        1: "damaged",
        2: "unreadable here",
        3: "in the trash",
    }
    assert found["unnamed"] == ["notes.txt"]


def test_versions_called_corrupt_for_nothing_are_healed_only_on_request(local: LocalService) -> None:
    with local.store.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET status = 'corrupt' WHERE number = 1")

    looked = run(local, "versions", "verify")
    assert looked.exit_code == FAILED and "the database calls 1 corrupt" in looked.output

    healed = run(local, "versions", "verify", "--heal")
    assert healed.exit_code == 0, healed.output
    assert "Not corrupt any more: 1" in healed.output
    assert local.roll_back(1).restored == 1


def test_a_folder_of_nobody_is_adopted_after_a_question(local: LocalService) -> None:
    (local.folder / MARK).unlink()
    file_of(local, 2).unlink()
    local.close()

    asked = runner.invoke(app, ["adopt", "--data-dir", str(local.folder.parent)], input="n\n")
    assert asked.exit_code == FAILED and not (local.folder / MARK).exists()

    result = run(local, "adopt", "--yes")
    assert result.exit_code == 0, result.output
    assert "holds 1 of the 2 checkpoints" in result.output and '"requeue": true' in result.output
    again = local.again()
    assert again.says("a") == "1" and "version 2" in str(again.opened.degraded)
    again.close()


def test_the_doctor_says_when_database_and_folder_are_strangers(local: LocalService, tmp_path: Path) -> None:
    assert "belong together" in run(local, "doctor").output
    (local.folder / MARK).write_text('{"store": "another", "founded": true}')
    local.close()

    strange = run(local, "doctor")
    for path in tmp_path.glob("errata.db*"):
        path.unlink()
    lost = run(local, "doctor")

    assert strange.exit_code == FAILED and "of store another" in strange.output
    assert lost.exit_code == FAILED and "its database is not there" in lost.output


def test_a_database_that_is_none_is_one_sentence_in_every_command(tmp_path: Path) -> None:
    (tmp_path / "errata.db").write_bytes(b"no database " * 1_000)
    for arguments in (["jobs"], ["versions", "verify"], ["adopt", "--yes"], ["doctor"]):
        result = runner.invoke(app, [*arguments, "--data-dir", str(tmp_path)])

        assert result.exit_code == FAILED, arguments
        assert "damaged or no database" in result.output + result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit)
