"""`errata eval`: data sets against a running server, the field's protocol on a temporary store, and errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli.main import app
from service.cli.options import FAILED, USAGE
from service.client.evaluations import EvaluationClient
from service.domain.errors import Conflict, NotFound
from service.evaluation.merging import merge_results
from service.runtime.open_version import open_version
from tests.api.live_server import LiveServer, tiny_settings
from tests.builders import save_model
from tests.no_limits import NO_LIMITS

ROWS = [
    {
        "id": f"row-{number}",
        "prompt": f"Thing {number} is",
        "target": "blue",
        "rephrases": [f"What is thing {number}?"],
        "locality": [{"prompt": "Snow is", "answer": "white", "group": "near"}],
    }
    for number in range(3)
]
runner = CliRunner()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path, *(json.dumps(row) for row in ROWS))


def write_rows(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: object) -> Result:
    return runner.invoke(app, ["eval", *map(str, arguments)])


def evaluate(server: LiveServer, data: Path, *options: object) -> tuple[Result, dict[str, Any]]:
    """Run `errata eval` against the server; the result and the report."""
    out = data.with_name("report.json")
    result = run("--server", f"http://127.0.0.1:{server.port}", "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return result, json.loads(out.read_text())


def edit_ids(server: LiveServer) -> list[str]:
    return [edit["id"] for edit in server.client.get("/edits?limit=200").json()["items"]]


def test_a_version_is_measured_on_a_data_set_without_an_edit(server: LiveServer, data: Path) -> None:
    before = edit_ids(server)

    result, report = evaluate(server, data, "--version", "base", "--limit", 2)

    assert edit_ids(server) == before
    assert report["version"] == 0
    assert report["data"]["records"] == 2
    surfaces = len(server.state.base.surfaces)
    assert report["result"]["greedy"]["generality"]["untrained"]["n"] == 2 * surfaces
    assert report["result"]["greedy"]["locality"]["score"] == 1.0
    assert "reliability (greedy)" in result.stdout
    stored = server.client.get(f"/eval/{report['result']['evaluations'][0]}").json()
    assert stored["result"]["greedy"] == report["result"]["greedy"]


def test_a_bad_row_is_reported_with_its_line_and_counted(server: LiveServer, tmp_path: Path) -> None:
    data = write_rows(tmp_path, json.dumps(ROWS[0]), '{"prompt": "no target"}', json.dumps(ROWS[1]))

    result, report = evaluate(server, data, "--schema", "errata")

    assert [row["line"] for row in report["data"]["bad"]] == [2]
    assert "row 2" in result.stderr
    assert "no target" not in result.output
    assert "2 records, 1 bad rows" in result.stdout


def test_what_is_not_read_is_told_with_the_name_of_its_field(server: LiveServer, tmp_path: Path) -> None:
    data = write_rows(tmp_path, *(json.dumps(row | {"my_probes": ["Who is [bold]it?"]}) for row in ROWS))

    result, report = evaluate(server, data, "--version", "base")

    assert report["data"]["notes"] == {"my_probes: not read": 3}
    assert "my_probes: not read (3)" in result.stderr
    assert "Who is" not in result.output


def test_a_data_set_may_be_csv_in_another_encoding(server: LiveServer, tmp_path: Path) -> None:
    data = tmp_path / "export.txt"
    data.write_bytes("prompt,target,rephrase\nThing one is,blue,What is 一?\n".encode("gbk"))

    _, report = evaluate(server, data, "--version", "base", "--format", "csv", "--encoding", "gbk")

    assert (report["data"]["records"], report["data"]["schema"]) == (1, "errata")
    assert report["result"]["greedy"]["generality"]["untrained"]["n"] == len(server.state.base.surfaces)


def test_a_record_that_the_server_refuses_is_left_out_and_named(server: LiveServer, tmp_path: Path) -> None:
    long = {**ROWS[1], "rephrases": ["word " * 500]}
    data = write_rows(tmp_path, json.dumps(ROWS[0]), json.dumps(long), json.dumps(ROWS[2]))

    result, report = evaluate(server, data, "--version", "base")

    assert list(report["refused"]) == ["row-1"]
    assert "record row-1" in result.stderr
    assert report["result"]["edits"] == 2


def test_the_protocol_measures_after_each_edit_and_after_all_edits(server: LiveServer, data: Path) -> None:
    before = edit_ids(server)

    result, report = evaluate(server, data, "--apply", "--metrics", "full")

    assert len(edit_ids(server)) == len(before) + 3
    assert sum(report["edits"].values()) == 3
    assert len(report["after_edit"]["evaluations"]) == 3
    assert len(report["after_all"]["evaluations"]) == 1
    evaluations = [server.client.get(f"/eval/{eval_id}").json() for eval_id in report["after_edit"]["evaluations"]]
    assert [evaluation["about"]["count"] for evaluation in evaluations] == [1, 1, 1]
    assert [evaluation["version"] for evaluation in evaluations] == sorted(evaluation["version"] for evaluation in evaluations)
    for moment in ("after_edit", "after_all"):
        assert report[moment]["greedy"]["reliability"]["n"] == 3 * len(server.state.base.surfaces)
        assert report[moment]["full"]["edits"] == 3
    assert "after edit" in result.stdout and "after all" in result.stdout


def test_all_edits_are_measured_once_more_after_a_retrain(fresh: LiveServer, data: Path) -> None:
    result, report = evaluate(fresh, data, "--apply", "--retrain", "--limit", 1)

    assert report["retrain"]["version"] == report["after_retrain"]["version"] > report["after_all"]["version"]
    assert report["edits"] == {"applied": 1}
    assert "after retrain" in result.stdout


def test_a_run_that_ends_early_prints_and_writes_its_measurements(
    server: LiveServer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Conflict("there is nothing to retrain")

    monkeypatch.setattr(EvaluationClient, "retrain", refuse)
    out = data.with_name("report.json")

    url = f"http://127.0.0.1:{server.port}"
    result = run("--server", url, "--data", data, "--limit", 1, "--apply", "--retrain", "--out", out)

    assert result.exit_code == FAILED
    assert "there is nothing to retrain" in result.stderr
    assert "after all" in result.stdout
    assert json.loads(out.read_text())["after_all"]["edits"] == 1


def test_a_benchmark_never_teaches_its_probes(server: LiveServer, data: Path) -> None:
    evaluate(server, data, "--apply", "--batch", 3)

    listed = server.client.get("/edits?limit=3").json()["items"]
    newest = [server.client.get(f"/edits/{edit['id']}").json() for edit in listed]
    assert {(edit["prompt"], len(edit["rephrases"] + edit["locality"])) for edit in newest} == {
        (row["prompt"], 0) for row in ROWS
    }


def test_without_data_the_live_edits_are_measured(server: LiveServer) -> None:
    result = run("--server", f"http://127.0.0.1:{server.port}")

    assert result.exit_code == 0, result.output
    newest = server.client.get("/eval?limit=1").json()["items"][0]
    assert newest["about"]["edits"] == "live"


def test_the_protocol_runs_on_a_temporary_store(
    tiny_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = tmp_path / "configured"
    monkeypatch.setenv("ERRATA_NEUTRAL__SENTENCES", "24")
    monkeypatch.setenv("ERRATA_NEUTRAL__HELD_OUT", "24")
    monkeypatch.setenv("ERRATA_NEUTRAL__TOKENS", "12")
    for name, limit in NO_LIMITS.items():
        monkeypatch.setenv(f"ERRATA_WINDOW__{name.upper()}", str(limit))
    out = tmp_path / "report.json"

    result = run("--model", tiny_model, "--data-dir", configured, "--data", data, "--limit", 1, "--apply", "--out", out)

    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["after_all"]["edits"] == 1
    assert not configured.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version", "v1"], USAGE),
        (["--metrics", "some"], USAGE),
        (["--apply"], USAGE),
        (["--apply", "--data", "x", "--version", "3"], USAGE),
        (["--retrain"], USAGE),
        (["--batch", "2"], USAGE),
        (["--encoding", "gbk"], USAGE),
        (["--format", "csv"], USAGE),
        (["--harness", "x", "--server", "http://127.0.0.1:1"], USAGE),
        (["--data", "no-such-file.json"], FAILED),
        (["--server", "nonsense"], FAILED),
        (["--server", "http://127.0.0.1:1", "--capability-file", "x"], FAILED),
    ],
)
def test_contradictory_options_are_refused(arguments: list[str], code: int) -> None:
    result = run(*arguments)

    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("", []),
        ("[]", []),
        ('{"a": 1}', []),
        (json.dumps(ROWS[0]), ["--schema", "mine"]),
        (json.dumps(ROWS[0]), ["--encoding", "mine"]),
        (json.dumps(ROWS[0]), ["--format", "mine"]),
    ],
)
def test_a_malformed_data_set_is_refused(tmp_path: Path, content: str, options: list[str]) -> None:
    result = run("--server", "http://127.0.0.1:1", "--data", write_rows(tmp_path, content), *options)

    assert result.exit_code == FAILED, result.output
    assert result.stderr.strip()


def test_an_unknown_version_is_reported_in_a_sentence(server: LiveServer, data: Path) -> None:
    result = run("--server", f"http://127.0.0.1:{server.port}", "--data", data, "--version", 999_999)

    assert result.exit_code == FAILED
    assert "version" in result.stderr


def test_results_are_merged_by_their_n() -> None:
    one = {"edits": 1, "greedy": {"score": 1.0, "n": 1, "label": "a", "base": 0.0}, "evaluations": ["x"], "capability": {"n": 9}}
    two = {"edits": 3, "greedy": {"score": 0.5, "n": 3, "label": "a", "base": 1.0}, "evaluations": ["y"]}
    none = {"edits": 0, "greedy": {"score": None, "n": 0, "label": "a", "base": None}, "evaluations": ["z"]}

    merged = merge_results([one, two, none])

    assert merged == {
        "edits": 4,
        "greedy": {"score": pytest.approx(2.5 / 4), "n": 4, "label": "a", "base": pytest.approx(3 / 4)},
        "evaluations": ["x", "y", "z"],
        "capability": {"n": 9},
    }
    assert merge_results([none, none])["greedy"]["score"] is None


def test_a_version_is_opened_beside_a_running_server(server: LiveServer, tiny_model: Path) -> None:
    edit = server.edit("The colour of the sky is", "green")
    settings = server.state.settings

    with open_version(settings, "head") as (head, _, adapter), open_version(settings, "base") as (base, _, none):
        assert head == server.client.get("/versions/head").json()["number"] >= (edit["version"] or 0)
        assert (adapter is None) == (server.state.lifecycle.follower.current.overlay.adapter is None)
        assert (base, none) == (0, None)
    with pytest.raises(NotFound), open_version(settings, "999999"):
        pass


def test_the_head_of_a_store_that_does_not_exist_yet_is_the_base(tiny_model: Path, tmp_path: Path) -> None:
    with open_version(tiny_settings(tiny_model, tmp_path / "new"), "head") as (number, _, adapter):
        assert (number, adapter) == (0, None)
    assert not (tmp_path / "new").exists()


def test_a_store_of_another_base_model_is_not_opened(server: LiveServer, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", "llama", seed=7)

    with (
        pytest.raises(Conflict),
        open_version(server.state.settings.model_copy(update={"model": str(other)}), "head"),
    ):
        pass
