"""The scope and the aliases of an edit, against a real server."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.api.idempotency import digest_of
from service.api.schemas.edits import EditIn
from service.cli import options
from service.cli.main import app
from service.cli.options import USAGE
from service.client.errata_client import ErrataClient
from tests.api.live_server import LiveServer, live_server, tiny_settings


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tiny_settings(tiny_model, tmp_path_factory.mktemp("scoped"))) as running:
        yield running


def fresh_prompt() -> str:
    return f"The colour of stone {uuid.uuid4().hex[:8]} is"


def refusal_of(server: LiveServer, **given: Any) -> dict[str, str]:
    response = server.client.post("/edits", json={"prompt": fresh_prompt(), "target": "red", **given})
    assert response.status_code == 422, response.text
    fault: dict[str, str] = response.json()["errors"][0]
    return fault


def test_an_edit_keeps_its_scope_and_its_aliases_normalised_and_each_once(server: LiveServer) -> None:
    aliases = ["Kilimanja\u0301ro", " Kibo  peak", "Kibo peak", "Kilimanj\u00e1ro"]

    edit = server.edit(fresh_prompt(), "red", subject="Kilimanjaro", scope="subject", aliases=aliases)

    assert (edit["scope"], edit["aliases"]) == ("subject", ["Kilimanj\u00e1ro", "Kibo peak"])
    assert server.client.get(f"/edits/{edit['id']}").json()["aliases"] == edit["aliases"]
    (listed,) = [item for item in server.client.get("/edits").json()["items"] if item["id"] == edit["id"]]
    assert listed["scope"] == "subject" and "aliases" not in listed


def test_an_edit_that_says_nothing_has_the_default_scope_and_no_aliases(server: LiveServer) -> None:
    edit = server.edit(fresh_prompt(), "red")

    assert (edit["scope"], edit["aliases"]) == ("auto", [])


def test_edits_of_a_batch_have_each_its_own_scope(server: LiveServer) -> None:
    bodies = [
        {"prompt": fresh_prompt(), "target": "red", "scope": "always"},
        {"prompt": fresh_prompt(), "target": "red", "aliases": ["Kibo"], "scope": "subject"},
    ]

    page = server.client.post("/edits/batch?wait=30", json={"edits": bodies}).json()["items"]

    assert [edit["scope"] for edit in page] == ["always", "subject"]
    assert server.client.get(f"/edits/{page[1]['id']}").json()["aliases"] == ["Kibo"]


@pytest.mark.parametrize("scope", ["Always", "", "never", None, 1, ["auto"]])
def test_any_other_scope_is_refused_by_the_name_of_the_field(server: LiveServer, scope: object) -> None:
    assert refusal_of(server, scope=scope) == {"field": "scope", "detail": "scope must be 'auto', 'subject' or 'always'"}


def test_the_scope_by_subject_needs_a_name_and_the_refusal_says_of_which_edit(server: LiveServer) -> None:
    nameless = {"prompt": fresh_prompt(), "target": "red", "scope": "subject"}

    single = refusal_of(server, scope="subject", aliases=[])
    unreadable = refusal_of(server, scope="subject", subject="...", aliases=["?!"])
    batch = server.client.post("/edits/batch", json={"edits": [{"prompt": "a", "target": "b"}, nameless]})

    assert single == unreadable == {"field": "scope", "detail": "scope must not be 'subject' without a subject or an alias"}
    assert (batch.status_code, batch.json()["errors"][0]["field"]) == (422, "edits[1].scope")


@pytest.mark.parametrize(
    ("aliases", "field"),
    [
        ([f"name {number}" for number in range(17)], "aliases"),
        ("Kibo", "aliases"),
        (["Kibo", " \t"], "aliases[1]"),
        ([""], "aliases[0]"),
        (["a\x00b"], "aliases[0]"),
        (["a" * 501], "aliases[0]"),
        ([["Kibo"]], "aliases[0]"),
        (None, "aliases"),
    ],
)
def test_aliases_that_are_no_names_or_too_many_are_refused(server: LiveServer, aliases: object, field: str) -> None:
    fault = refusal_of(server, aliases=aliases, scope="subject")

    assert fault["field"] == field
    assert "Kibo" not in json.dumps(fault)


def test_sixteen_aliases_as_long_as_a_subject_may_be_are_accepted(server: LiveServer) -> None:
    aliases = [f"{letter}{'x' * 499}" for letter in "abcdefghijklmnop"]

    edit = server.edit(fresh_prompt(), "red", aliases=aliases)

    assert edit["aliases"] == aliases


def test_scope_and_aliases_are_part_of_what_an_idempotency_key_stands_for(server: LiveServer) -> None:
    body, header = {"prompt": fresh_prompt(), "target": "red"}, {"Idempotency-Key": uuid.uuid4().hex}
    first = server.client.post("/edits", json=body, headers=header).json()

    same = server.client.post("/edits", json=body | {"scope": "auto", "aliases": []}, headers=header)
    others = [
        server.client.post("/edits", json=body | more, headers=header) for more in ({"scope": "always"}, {"aliases": ["a"]})
    ]

    assert same.json()["id"] == first["id"]
    assert [(other.status_code, other.json()["errors"][0]["field"]) for other in others] == [(422, "Idempotency-Key")] * 2


def test_a_body_without_the_fields_has_the_digest_of_before_there_were_these() -> None:
    fields = ("subject", "relation", "ground_truth", "conflict_key", "method")
    lists = {name: [] for name in ("rephrases", "locality", "portability", "surfaces")}
    before = {"prompt": "a", "target": "b", "metadata": {}, **dict.fromkeys(fields), **lists}

    digest = digest_of(EditIn(prompt="a", target="b", scope="auto", aliases=[]))

    assert digest == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()


def test_the_client_posts_and_reads_them(server: LiveServer) -> None:
    with ErrataClient(f"http://127.0.0.1:{server.port}") as client:
        posted = client.post_edit({"prompt": fresh_prompt(), "target": "red", "scope": "always", "aliases": ["Kibo"]}, wait_s=30)

        assert (posted["scope"], posted["aliases"]) == ("always", ["Kibo"])


# The commands


@pytest.fixture(autouse=True)
def commands_write_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs in this process, and its log would appear in the output of the commands."""
    monkeypatch.setattr(options, "configure_logging", lambda level: None)


def run(server: LiveServer, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--server", f"http://127.0.0.1:{server.port}"])


def test_the_command_posts_the_scope_and_the_aliases_and_prints_them(server: LiveServer) -> None:
    names = ("--subject", "Kilimanjaro", "--alias", "Kibo", "--alias", "Uhuru")

    result = run(server, "edit", fresh_prompt(), "red", *names, "--scope", "subject")

    assert result.exit_code == 0, result.output
    assert "scope: subject (Kilimanjaro, Kibo, Uhuru)" in result.output


def test_the_command_refuses_another_word_for_scope(server: LiveServer) -> None:
    result = run(server, "edit", fresh_prompt(), "red", "--scope", "never")

    assert result.exit_code == USAGE
    assert "auto, subject or always" in result.output
