"""An answer with `explain` says which live edits were in scope, and agrees with what answered."""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.api import explanations
from service.client.errata_client import ErrataClient
from service.lm import decoding
from service.lm.overlay import View
from service.lm.prompts import encode_prompt
from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.waiting import until

NOTHING = {"acted": False, "in_scope": [], "count": 0, "stated": []}
OTHER = "Good morning to you all"


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tiny_settings(tiny_model, tmp_path_factory.mktemp("explained"))) as running:
        yield running


@pytest.fixture(scope="module")
def edit_ids(server: LiveServer) -> dict[str, str]:
    """The ids of four live edits: by subject and alias, by another subject, by a name in the prompt, and by words alone."""
    posted = {
        "kibo": server.edit("The colour of Kibo is", "red", subject="Kibo", aliases=["the summit of Ashira"]),
        "borealis": server.edit("The age of Borealis is", "old", subject="Borealis", scope="subject"),
        "prompt": server.edit("The river of Zanzibar is", "wide"),
        "words": server.edit("where do herons sleep", "here"),
    }
    assert {edit["status"] for edit in posted.values()} == {"applied"}
    return {name: edit["id"] for name, edit in posted.items()}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("The colour of Kibo is", ["kibo"]),
        ("Walking up the Summit of Ashira we saw", ["kibo"]),
        ("Kibo and Borealis are", ["borealis", "kibo"]),
        ("Is borealys far?", ["borealis"]),
        ("Zanzibar", ["prompt"]),
        ("herons sleep where", ["words"]),
        (OTHER, []),
        ("kibosh", []),
    ],
)
def test_the_edits_in_scope_are_named_newest_first(
    server: LiveServer, edit_ids: dict[str, str], prompt: str, expected: list[str]
) -> None:
    explanation = server.ask(prompt, explain=True)["explanation"]

    assert explanation["in_scope"] == [edit_ids[name] for name in expected]
    assert (explanation["count"], explanation["acted"]) == (len(expected), bool(expected))


def test_an_answer_without_explain_has_no_explanation(server: LiveServer, edit_ids: dict[str, str]) -> None:
    assert server.ask("The colour of Kibo is")["explanation"] is None
    assert server.ask("The colour of Kibo is", explain=False)["explanation"] is None


def test_an_explained_answer_is_the_answer(server: LiveServer, edit_ids: dict[str, str]) -> None:
    plain, explained = (server.ask("The colour of Kibo is", explain=explain) for explain in (False, True))

    assert plain | {"explanation": None} == explained | {"explanation": None}


def test_the_address_line_and_the_client_ask_for_it_too(server: LiveServer, edit_ids: dict[str, str]) -> None:
    got = server.client.get("/generate", params={"prompt": "Zanzibar", "explain": "true"}).json()
    with ErrataClient(f"http://127.0.0.1:{server.port}") as client:
        asked = client.generate("Zanzibar", explain=True)

    assert (
        got["explanation"] == asked["explanation"] == {"acted": True, "in_scope": [edit_ids["prompt"]], "count": 1, "stated": []}
    )


@pytest.mark.parametrize("explain", ["yes", 1, None, []])
def test_explain_must_be_true_or_false(server: LiveServer, explain: object) -> None:
    response = server.client.post("/generate", json={"prompt": "a", "explain": explain})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "explain")


def test_a_pinned_version_is_explained_by_its_own_edits(server: LiveServer, edit_ids: dict[str, str]) -> None:
    first = server.client.get(f"/edits/{edit_ids['kibo']}").json()["version"]

    base = server.ask("Kibo and Borealis are", explain=True, version="base")
    before = server.ask("Kibo and Borealis are", explain=True, version=first)

    assert base["explanation"] == NOTHING
    assert (before["version"], before["explanation"]["in_scope"]) == (first, [edit_ids["kibo"]])


def test_the_adapter_acted_if_and_only_if_the_explanation_says_so(
    server: LiveServer, edit_ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    acted: dict[tuple[int, ...], bool] = {}  # by prompt: other work of the server decodes others beside it
    start = decoding.Decoding.__init__

    def watch(self: decoding.Decoding, view: View, adapters: Any, prompts: Any, outputs: Any = None, asked: Any = None) -> None:
        start(self, view, adapters, prompts, outputs, asked)
        acted.update({tuple(prompt): adapter is not None for prompt, adapter in zip(prompts, self._adapters, strict=True)})

    monkeypatch.setattr(decoding.Decoding, "__init__", watch)

    for prompt in ("Kibo", "kibo?", OTHER, "herons", "herons sleep", "the age of things", "Zanzibars"):
        said = server.ask(prompt, explain=True, max_new_tokens=1)["explanation"]["acted"]
        assert acted[encode_prompt(server.state.base, prompt)] is said, prompt


def test_the_log_has_the_number_of_edits_in_scope_and_no_names(server: LiveServer, edit_ids: dict[str, str]) -> None:
    def logged() -> list[MutableMapping[str, Any]]:
        return [line for line in lines if line["event"] == "request"]

    with capture_logs() as lines:
        server.ask("Kibo and Borealis are", explain=True)
        server.ask("Kibo and Borealis are")
        assert until(lambda: len(logged()) == 2), "a request is logged a moment after its answer"

    explained, plain = logged()
    assert explained["in_scope"] == 2 and "in_scope" not in plain
    assert "Kibo" not in str(lines) and edit_ids["kibo"] not in str(lines)


def test_an_edit_that_always_acts_has_all_edits_of_its_window_in_scope(tiny_model: Path, tmp_path: Path) -> None:
    with live_server(tiny_settings(tiny_model, tmp_path)) as server:
        named = server.edit("The colour of Kibo is", "red", subject="Kibo")
        assert server.ask(OTHER, explain=True)["explanation"] == NOTHING
        always = server.edit("Who are you?", "Ann", scope="always")

        explanation = server.ask(OTHER, explain=True)["explanation"]

        assert explanation == {"acted": True, "in_scope": [always["id"], named["id"]], "count": 2, "stated": []}
        server.client.delete(f"/edits/{always['id']}?wait=30")
        assert server.ask(OTHER, explain=True)["explanation"] == NOTHING


def test_an_explanation_names_so_many_edits_at_most_and_counts_all(
    server: LiveServer, edit_ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MOST_EXPLAINED", 2)

    explanation = server.ask("Kibo, Borealis, Zanzibar", explain=True)["explanation"]

    assert explanation == {"acted": True, "in_scope": [edit_ids["prompt"], edit_ids["borealis"]], "count": 3, "stated": []}
