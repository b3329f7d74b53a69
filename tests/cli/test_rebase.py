"""`errata rebase` from outside: its question, its report, its exit code, and the local server that does the retrain."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import options
from service.cli.main import app
from service.cli.options import FAILED, USAGE
from tests.api.live_server import live_server, tiny_settings
from tests.builders import make_model, make_tokenizer, save_model
from tests.no_limits import NO_LIMITS

runner = CliRunner()
MOSS, COAL = "The colour of moss is", "The colour of coal is"


@pytest.fixture(autouse=True)
def small_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a random model, also for the local server. No log lines of this process in the output."""
    monkeypatch.setattr(options, "configure_logging", lambda level: None)
    neutral = {"SENTENCES": "24", "HELD_OUT": "24", "TOKENS": "12"}
    for name, value in {f"NEUTRAL__{name}": value for name, value in neutral.items()}.items():
        monkeypatch.setenv(f"ERRATA_{name}", value)
    for name, limit in NO_LIMITS.items():
        monkeypatch.setenv(f"ERRATA_WINDOW__{name.upper()}", str(limit))


def run(data: Path, *arguments: str, typed: str | None = None) -> Result:
    return runner.invoke(app, ["rebase", *arguments, "--data-dir", str(data)], input=typed)


def test_the_edits_are_taken_to_the_new_base_and_reported_one_by_one(tiny_model: Path, tmp_path: Path) -> None:
    new, data = tmp_path / "new", tmp_path / "data"
    make_model(seed=1).save_pretrained(new)
    make_tokenizer(chat=False).save_pretrained(new)
    with live_server(tiny_settings(tiny_model, data)) as server:
        server.edit(MOSS, "green")
        server.edit(COAL, "black", surfaces=["chat"])

    refused = run(data, "--model", str(new), typed="n\n")
    assert refused.exit_code == 1 and "Take the store from" in " ".join(refused.output.split())
    done = run(data, "--model", str(new), "--yes", "--json")
    again = run(data, "--model", str(new))  # there is nothing to ask any more

    reported = [(edit["prompt"], edit["outcome"]) for edit in json.loads(done.stdout)]
    assert reported == [(MOSS, "taken"), (COAL, "refused")]
    assert done.exit_code == again.exit_code == FAILED  # an edit was not taken
    assert "1 of 2 edits are live" in " ".join(again.output.split())
    with live_server(tiny_settings(new, data)) as server:
        assert server.ask(MOSS)["text"] == "green"


def test_the_stores_own_base_is_nothing_to_do(tiny_model: Path, tmp_path: Path) -> None:
    with live_server(tiny_settings(tiny_model, tmp_path / "data")):
        pass

    result = run(tmp_path / "data", "--model", str(tiny_model))

    assert result.exit_code == 0 and "nothing to do" in result.output


def test_without_a_model_or_a_database_nothing_is_done(tiny_model: Path, tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == USAGE

    result = run(tmp_path / "data", "--model", str(tiny_model), "--yes")

    assert result.exit_code == FAILED and "no database" in " ".join(result.output.split())
    assert not (tmp_path / "data").exists()


def test_a_server_at_work_is_left_at_work(tiny_model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=1)
    with live_server(tiny_settings(tiny_model, tmp_path / "data")) as server:
        result = run(tmp_path / "data", "--model", str(other), "--yes")

        assert result.exit_code == FAILED and "server" in result.output
        assert server.edit(MOSS, "green")["status"] == "applied"
