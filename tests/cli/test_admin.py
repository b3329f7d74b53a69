"""The commands for operators, against a real server, and one of them with a local server."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from service.cli import options
from service.cli.admin import _table
from service.cli.main import app
from service.cli.options import FAILED, USAGE
from service.client.local_server import free_port, open_client, refuse_used_folder
from service.lm.load_errata import load
from service.settings import environment_of, load_settings
from tests.api.live_server import LiveServer, live_server, tiny_settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def commands_write_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs in this process, and its log would appear in the output of the commands."""
    monkeypatch.setattr(options, "configure_logging", lambda level: None)


def run(server: LiveServer, *arguments: str, answer: str | None = None) -> Result:
    return runner.invoke(app, [*arguments, "--server", f"http://127.0.0.1:{server.port}"], input=answer)


@pytest.mark.parametrize("name", ["export", "purge", "revoke", "jobs"])
def test_every_command_has_a_help_text(name: str) -> None:
    assert runner.invoke(app, [name, "--help"]).exit_code == 0


def test_a_version_is_exported_to_the_given_folder_alone(server: LiveServer, tmp_path: Path) -> None:
    server.edit("The colour of moss is", "green")

    result = run(server, "export", "--out", str(tmp_path / "new" / "out"), "--max-shard-size", "20KB")

    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "new" / "out").glob("*/model-*.safetensors"))) > 1
    assert list(server.state.exports.iterdir()) == []
    load(tmp_path / "new" / "out")


def test_an_export_whose_weights_lack_edits_prints_a_warning_on_stderr(server: LiveServer, tmp_path: Path) -> None:
    server.edit("The colour of moss is", "green")

    result = run(server, "export", "--out", str(tmp_path / "window"))

    assert "Warning: The weights alone lack" in result.stderr
    assert "load_errata.py" in result.stderr and "--consolidate" in result.stderr
    assert "Warning" not in result.stdout


def test_an_export_whose_weights_hold_all_edits_prints_no_warning(server: LiveServer, tmp_path: Path) -> None:
    result = run(server, "export", "--out", str(tmp_path / "base"), "--version", "base")

    assert result.exit_code == 0 and "Warning" not in result.output
    AutoModelForCausalLM.from_pretrained(tmp_path / "base")


def test_an_export_to_a_folder_that_is_not_empty_is_refused_at_once(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    before = server.client.get("/jobs?kind=export").json()

    result = run(server, "export", "--out", str(tmp_path))

    assert result.exit_code == FAILED
    assert "--out" in result.stderr
    assert server.client.get("/jobs?kind=export").json() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["export"],
        ["export", "--out", "x", "--version", "latest"],
        ["export", "--out", "x", "--version", "²"],
        ["export", "--out", "x", "--version", "9" * 5000],
        ["export", "--out", "x", "--mode", "all"],
        ["revoke", "--author", "a"],
        ["revoke", "--author", "a", "--since", "yesterday"],
        ["purge"],
        ["jobs", "--limit", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == USAGE


def test_a_refusal_of_the_server_is_its_sentence_and_exit_code_1(server: LiveServer, tmp_path: Path) -> None:
    result = run(server, "export", "--out", str(tmp_path / "out"), "--version", "999")

    assert result.exit_code == FAILED
    assert result.stderr.strip() == "there is no version with this number"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["not an address", "ftp://x", "http://"])
def test_a_malformed_server_address_is_refused(url: str) -> None:
    assert runner.invoke(app, ["jobs", "--server", url]).exit_code == FAILED


def test_a_server_that_does_not_answer_is_exit_code_1() -> None:
    result = runner.invoke(app, ["jobs", "--server", f"http://127.0.0.1:{free_port()}"])

    assert result.exit_code == FAILED
    assert "cannot be reached" in result.stderr


def test_edits_of_an_author_are_revoked_and_then_purged(server: LiveServer) -> None:
    edit = server.edit("The colour of ink is", "blue")

    revoked = run(server, "revoke", "--author", "local", "--since", "2000-01-01")
    assert revoked.exit_code == 0, revoked.output
    assert server.client.get(f"/edits/{edit['id']}").json()["status"] == "retracted"

    declined = run(server, "purge", edit["id"], answer="n\n")
    assert declined.exit_code == FAILED
    assert server.client.get(f"/edits/{edit['id']}").status_code == 200

    purged = run(server, "purge", edit["id"], "--yes")
    assert purged.exit_code == 0, purged.output
    assert "backups" in purged.output
    assert server.client.get(f"/edits/{edit['id']}").status_code == 404


def test_jobs_are_listed_and_a_finished_job_is_not_cancelled(server: LiveServer) -> None:
    server.edit("The colour of rust is", "brown")

    listed = run(server, "jobs", "--json", "--kind", "apply", "--limit", "1")

    (job,) = json.loads(listed.output)
    assert (job["kind"], job["status"]) == ("apply", "done")
    assert job["id"] in run(server, "jobs", "--all").output
    assert job["id"] not in run(server, "jobs").output
    assert run(server, "jobs", "--cancel", job["id"]).exit_code == FAILED
    assert run(server, "jobs", "--cancel", "../edits").exit_code == FAILED


def test_the_list_of_jobs_breaks_no_word_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    running = {"id": "01936b0e-7001-7a10-8f00-3c5d2b1a0f42", "kind": "retrain", "mode": "major", "status": "running"}
    details = {"progress": 0.4, "seconds_left": 21.3, "stage": "training", "version": None, "error": None, "author": "local"}
    console = Console(file=io.StringIO())

    console.print(_table([running | details | {"reason": "consolidation [sic] is overdue"}]))

    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert {"major", "retrain", "running", "40%,", "training,", "consolidation", "[sic]", "overdue,"} <= set(printed.split())


def test_a_folder_in_use_is_refused_with_the_option_to_give(server: LiveServer) -> None:
    result = runner.invoke(app, ["purge", "one", "--yes", "--data-dir", str(server.state.settings.data_dir)])

    assert result.exit_code == FAILED
    assert "--server URL" in result.stderr


def test_without_a_server_a_command_starts_and_stops_a_local_one(tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path / "data")
    with live_server(settings) as first:
        version = first.edit("The colour of moss is", "green")["version"]

    with open_client(None, settings) as client:
        head = client.get_version("head")
        answer = client.generate("The colour of moss is", max_new_tokens=8)

    assert head["number"] == version
    assert answer["text"] == "green"
    refuse_used_folder(settings)  # the folder is free again


def test_a_child_process_has_the_settings_of_its_parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERRATA_BAFT__PRESET", "paper")
    monkeypatch.setenv("ERRATA_LIMITS__BODY_BYTES", "5000")
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", '["a.example"]')
    settings = load_settings(data_dir=tmp_path, database_url="postgresql://me:secret@host/db", allow_public_bind=True)
    environment = environment_of(settings)

    for name in ("ERRATA_BAFT__PRESET", "ERRATA_LIMITS__BODY_BYTES", "ERRATA_ALLOWED_HOSTS"):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings
