"""The `errata` command: its exit codes, and secrets that it never prints. Other tests run `serve` and `demo`."""

import errno
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service import __version__
from service.cli.main import app
from service.cli.options import FAILED, USAGE
from service.client.local_server import free_port
from service.runtime.server import banner
from service.runtime.sockets import bind_port
from tests.builders import save_model
from tests.servers import postgres_database

SECRET = "hunter2-do-not-show"
runner = CliRunner()


def test_the_version_is_printed() -> None:
    result = runner.invoke(app, ["version"])

    assert (result.exit_code, result.output.strip()) == (0, __version__)


@pytest.mark.parametrize("command", ["serve", "migrate", "doctor", "demo", "version"])
def test_every_command_has_a_help_text(command: str) -> None:
    assert runner.invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("arguments", [["no-such-command"], ["serve", "--no-such-option"], ["serve", "--port", "x"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == USAGE


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["serve", "--host", "0.0.0.0"], "--allow-public-bind"),
        (["serve", "--host", "0.0.0.0", "--allow-public-bind"], "--allowed-host"),
        (["serve", "--method", "rome"], "method"),
        (["serve", "--database-url", f"mysql://me:{SECRET}@host/db"], "database_url"),
    ],
)
def test_a_refused_setting_is_exit_code_2_and_named(arguments: list[str], name: str) -> None:
    result = runner.invoke(app, arguments)

    assert result.exit_code == USAGE
    assert name in result.stderr
    assert SECRET not in result.output


def test_an_unknown_variable_stops_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_METHDO", SECRET)

    result = runner.invoke(app, ["doctor"])

    assert result.exit_code == USAGE
    assert "ERRATA_METHOD" in result.stderr
    assert SECRET not in result.output


def test_migrate_creates_the_database_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        assert runner.invoke(app, ["migrate", "--data-dir", str(tmp_path / "new")]).exit_code == 0

    assert (tmp_path / "new" / "errata.db").is_file()


def test_a_database_that_does_not_answer_is_exit_code_1() -> None:
    url = f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/errata"

    result = runner.invoke(app, ["migrate", "--database-url", url])

    assert result.exit_code == FAILED
    assert SECRET not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["migrate"],
        ["serve", "--port", "0"],
        ["purge", "--yes", "an-edit"],
        ["revoke", "--author", "a", "--since", "2026-01-01"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_unwritable_folder_is_one_sentence_and_exit_code_1(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")

    result = runner.invoke(app, [*arguments, "--data-dir", str(tmp_path / "a-file" / "data")])

    assert (result.exit_code, type(result.exception)) == (FAILED, SystemExit)
    assert "cannot be written to: not a directory" in result.stderr.splitlines()[-1]


def test_a_disk_error_of_any_command_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.store import migrate

    def raise_disk_error(_url: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/data/somewhere")

    monkeypatch.setattr(migrate, "upgrade", raise_disk_error)

    result = runner.invoke(app, ["migrate"])

    assert (result.exit_code, result.stderr.strip()) == (FAILED, "/data/somewhere: read-only file system")


@pytest.mark.parametrize(
    "url", [f"postgresql://me:{SECRET}@host:port/db", f"postgresql://me:{SECRET}@[::1/db", f"redis://:{SECRET}@host:99999999/0"]
)
def test_a_malformed_url_is_refused_before_it_is_opened(url: str) -> None:
    option = "--redis-url" if url.startswith("redis") else "--database-url"

    result = runner.invoke(app, ["doctor", option, url])

    assert result.exit_code == USAGE
    assert "must be a well-formed URL such as" in result.stderr
    assert SECRET not in result.output


def test_the_doctor_reports_a_missing_database(tmp_path: Path) -> None:
    with postgres_database() as url:
        result = runner.invoke(app, ["doctor", "--data-dir", str(tmp_path), "--database-url", f"{url}_not_there"])

    assert result.exit_code == FAILED
    assert "does not exist: make it with `createdb`" in " ".join(result.output.split())


def test_the_doctor_reports_missing_parts_and_shows_no_password(tmp_path: Path) -> None:
    arguments = ["--data-dir", str(tmp_path), "--model", str(tmp_path)]
    arguments += ["--database-url", f"postgresql://me:{SECRET}@127.0.0.1:{free_port()}/errata"]
    arguments += ["--redis-url", f"redis://:{SECRET}@127.0.0.1:{free_port()}/0"]

    result = runner.invoke(app, ["doctor", *arguments])

    assert result.exit_code == FAILED
    assert "postgresql://me:***@127.0.0.1" in result.output
    assert "has no config.json" in result.output
    assert SECRET not in result.output


def test_the_doctor_reports_a_port_for_health_checks_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bind_port("127.0.0.1", 0) as (listening, *_):
        listening.listen()
        port = listening.getsockname()[1]
        monkeypatch.setenv("ERRATA_HEALTH_PORT", str(port))
        result = runner.invoke(app, ["doctor", "--data-dir", str(tmp_path), "--model", str(tmp_path)])

    assert f"port {port} of 127.0.0.1 is in use" in " ".join(result.output.split())
    assert "ERRATA_HEALTH_PORT" in result.output


def test_the_doctor_accepts_a_complete_configuration(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")

    result = runner.invoke(app, ["doctor", "--data-dir", str(tmp_path / "data"), "--model", str(model)])

    assert result.exit_code == 0, result.output


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


def test_three_lines_to_try_are_printed() -> None:
    lines = banner("http://127.0.0.1:8000")

    assert len([line for line in lines if line.strip().startswith("curl ")]) == 3
