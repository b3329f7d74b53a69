"""Deferred edits and edits that are accepted anyway, against a real server whose acceptance lets no fall of locality pass."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.api.idempotency import digest_of
from service.api.schemas.edits import EditIn
from service.cli import options
from service.cli.main import app
from service.cli.options import FAILED, USAGE
from service.client.errata_client import ErrataClient
from service.domain.acceptance import Decision
from service.lifecycle import apply
from tests.api.live_server import LiveServer, live_server, tiny_settings

REFUSED = Decision(False, ("locality would fall",), {"near": {"value": 0.5, "limit": 0.25}}, is_about_locality=True)


@pytest.fixture(scope="module")
def strict(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that refuses every fit of edits for its locality. Acceptance itself is tested in the domain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply.acceptance, "judge_scores", lambda *given, **named: REFUSED)
        with live_server(tiny_settings(tiny_model, tmp_path_factory.mktemp("strict"))) as running:
            yield running


def fresh_prompt() -> str:
    return f"The colour of stone {uuid.uuid4().hex[:8]} is"


def test_a_deferred_edit_says_why_with_figures_and_when_it_is_tried_next(strict: LiveServer) -> None:
    edit = strict.edit(fresh_prompt(), "red")

    deferral = edit["deferral"]
    assert edit["status"] == "deferred"
    reason = "locality would fall, also with the rest held more firmly; it waits for the next retrain"
    assert deferral["reason"] == edit["error"] == reason
    assert deferral["figures"] == REFUSED.figures
    assert (deferral["tried_on_version"], deferral["tries"]) == (edit_base(strict), 1)
    assert deferral["next_try"]["when"] == "by_time"
    until = datetime.fromisoformat(deferral["next_try"]["at"]) - datetime.fromisoformat(edit["created_at"])
    assert 299 < until.total_seconds() < 302
    (listed,) = [item for item in strict.client.get("/edits").json()["items"] if item["id"] == edit["id"]]
    assert without_moment(listed["deferral"]) == without_moment(deferral)
    assert strict.client.delete(f"/edits/{edit['id']}").json()["deferral"] is None


def edit_base(server: LiveServer) -> int:
    number: int = server.client.get("/versions/head").json()["number"]
    return number


def without_moment(deferral: dict[str, Any]) -> dict[str, Any]:
    """A deferral without the moment that is computed anew at each reading."""
    return deferral | {"next_try": {"when": deferral["next_try"]["when"], "edits": deferral["next_try"]["edits"]}}


def test_an_edit_deferred_by_an_earlier_release_has_an_unknown_deferral(strict: LiveServer) -> None:
    edit = strict.edit(fresh_prompt(), "red")
    with strict.state.store.write() as connection:
        connection.exec_driver_sql(f"UPDATE edits SET deferral = NULL WHERE id = '{edit['id']}'")

    deferral = strict.client.get(f"/edits/{edit['id']}").json()["deferral"]

    assert deferral["reason"] == edit["error"]
    assert (deferral["figures"], deferral["tries"], deferral["tried_at"]) == ({}, None, None)
    strict.client.delete(f"/edits/{edit['id']}")


def test_an_edit_is_accepted_anyway_and_says_so_with_its_version(strict: LiveServer) -> None:
    prompt = fresh_prompt()

    edit = strict.edit(prompt, "red", accept="anyway")

    assert (edit["status"], edit["accept"], edit["accepted_anyway"], edit["deferral"]) == ("applied", "anyway", True, None)
    assert strict.ask(prompt)["text"] == "red"
    scores = strict.client.get(f"/versions/{edit['version']}").json()["scores"]
    assert scores["accepted"] == "anyway"
    assert scores["refused"] == {"reasons": ["locality would fall"], "figures": REFUSED.figures}
    listed = strict.client.get("/edits?status=applied").json()["items"]
    assert edit["id"] in {item["id"] for item in listed if item["accepted_anyway"]}


def test_edits_of_a_batch_are_accepted_each_as_it_says(strict: LiveServer) -> None:
    bodies = [{"prompt": fresh_prompt(), "target": "red"}, {"prompt": fresh_prompt(), "target": "red", "accept": "anyway"}]

    page = strict.client.post("/edits/batch?wait=30", json={"edits": bodies}).json()["items"]

    assert [(edit["status"], edit["accepted_anyway"]) for edit in page] == [("deferred", False), ("applied", True)]
    strict.client.delete(f"/edits/{page[0]['id']}")


@pytest.mark.parametrize("accept", ["always", "", "Anyway", True, None, 1])
def test_any_other_word_for_accept_is_refused_by_the_name_of_the_field(strict: LiveServer, accept: object) -> None:
    body = {"prompt": fresh_prompt(), "target": "red", "accept": accept}
    single, batch = strict.client.post("/edits", json=body), strict.client.post("/edits/batch", json={"edits": [body]})

    assert (single.status_code, batch.status_code) == (422, 422)
    assert single.json()["errors"] == [{"field": "accept", "detail": "accept must be 'judged' or 'anyway'"}]
    assert batch.json()["errors"][0]["field"] == "edits[0].accept"


def test_a_retrain_is_always_judged_so_a_method_that_needs_one_takes_no_anyway(strict: LiveServer) -> None:
    response = strict.client.post("/edits", json={"prompt": fresh_prompt(), "target": "a", "method": "locft", "accept": "anyway"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "accept"


def test_accept_is_part_of_what_an_idempotency_key_stands_for(strict: LiveServer) -> None:
    body, header = {"prompt": fresh_prompt(), "target": "red"}, {"Idempotency-Key": uuid.uuid4().hex}
    first = strict.client.post("/edits", json=body, headers=header).json()

    same = strict.client.post("/edits", json=body | {"accept": "judged"}, headers=header)
    other = strict.client.post("/edits", json=body | {"accept": "anyway"}, headers=header)

    assert same.json()["id"] == first["id"]
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    strict.client.delete(f"/edits/{first['id']}")


def test_a_body_without_accept_has_the_digest_that_it_had_before_there_was_the_field() -> None:
    fields = ("subject", "relation", "ground_truth", "conflict_key", "method")
    lists = {name: [] for name in ("rephrases", "locality", "portability", "surfaces")}
    before = {"prompt": "a", "target": "b", "metadata": {}, **dict.fromkeys(fields), **lists}

    digest = digest_of(EditIn(prompt="a", target="b"))

    assert digest == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()


def test_an_evaluation_of_the_live_edits_leaves_out_those_accepted_anyway_and_counts_them(
    strict: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict.edit(fresh_prompt(), "red", accept="anyway")
    monkeypatch.setattr(apply.acceptance, "judge_scores", lambda *given, **named: Decision(True))
    judged = strict.edit(fresh_prompt(), "red")
    forced = sum(item["accepted_anyway"] for item in strict.client.get("/edits?limit=200").json()["items"])
    assert forced > 0 and not judged["accepted_anyway"]

    with ErrataClient(f"http://127.0.0.1:{strict.port}") as client:
        evaluation = client.follow_evaluation(client.evaluate("live"))

    assert (evaluation["about"]["of"], evaluation["about"]["accepted_anyway"]) == (1, forced)
    assert evaluation["result"] is not None
    assert (evaluation["result"]["edits"], evaluation["result"]["accepted_anyway"]) == (1, forced)
    result = run(strict, "eval")
    assert f"live edits that were accepted anyway, and not asked: {forced}" in result.output


# The commands


@pytest.fixture(autouse=True)
def commands_write_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs in this process, and its log would appear in the output of the commands."""
    monkeypatch.setattr(options, "configure_logging", lambda level: None)


def run(server: LiveServer, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--server", f"http://127.0.0.1:{server.port}"])


def test_the_command_prints_why_an_edit_is_deferred_and_when_it_is_tried_next(strict: LiveServer) -> None:
    posted = run(strict, "edit", fresh_prompt(), "red", "--rephrase", fresh_prompt())
    edit_id = posted.output.split("edit: ")[1].split()[0]

    shown, listed = run(strict, "edits", edit_id), run(strict, "edits", "--status", "deferred")

    assert posted.exit_code == FAILED
    for words in (
        "is: deferred",
        "because: locality would fall",
        "near 0.500 (limit 0.250)",
        "tries: 1, last on",
        "next: a retrain is due",
    ):
        assert words in posted.output and words in shown.output
    assert edit_id in listed.output and "locality would fall" in listed.output and "a retrain is due" in listed.output
    strict.client.delete(f"/edits/{edit_id}")


def test_the_command_publishes_against_a_refusal_where_it_is_told_to(strict: LiveServer) -> None:
    result = run(strict, "edit", fresh_prompt(), "red", "--accept", "anyway")

    assert result.exit_code == 0, result.output
    assert "is: applied, accepted anyway" in result.output


def test_the_command_refuses_another_word_for_accept(strict: LiveServer) -> None:
    result = run(strict, "edit", fresh_prompt(), "red", "--accept", "always")

    assert result.exit_code == USAGE
    assert "judged or anyway" in result.output
