"""Aliases: names of versions that people move. Each move stays, and what an alias names is kept and answers."""

import openai
import pytest

from service.store import versions
from tests.api.live_server import LiveServer

PROMPT = "The colour of the lake is"


@pytest.fixture(scope="module")
def number(server: LiveServer) -> int:
    """A version that is not the head any more."""
    first = server.edit(PROMPT, "grey")["version"]
    server.edit(PROMPT, "gold")
    assert isinstance(first, int)
    return first


def put(server: LiveServer, name: str, version: int, **more: object) -> int:
    return server.client.put(f"/aliases/{name}", json={"version": version, **more}).status_code


def test_an_alias_is_moved_and_every_move_stays(server: LiveServer, number: int) -> None:
    assert put(server, "moving", number, reason="evaluated") == 200
    assert put(server, "moving", 0) == put(server, "moving", 0) == 200

    assert server.client.delete("/aliases/moving").json()["version"] is None

    moves = server.client.get("/aliases/moving").json()["items"]
    assert [(move["version"], move["reason"]) for move in moves] == [(None, None), (0, None), (number, "evaluated")]
    assert "moving" not in {alias["alias"] for alias in server.client.get("/aliases").json()["items"]}
    assert server.client.delete("/aliases/moving").status_code == 404


def test_another_reason_for_the_same_version_is_kept_and_none_is_not(server: LiveServer, number: int) -> None:
    for reason in ("tried", "evaluated", None):
        put(server, "reasoned", number, reason=reason)

    assert [move["reason"] for move in server.client.get("/aliases/reasoned").json()["items"]] == ["evaluated", "tried"]


def test_what_an_alias_names_answers_under_its_name(server: LiveServer, number: int) -> None:
    put(server, "stable", number)
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client:
        name = client.models.list().data[0].id
        said = client.completions.create(model=f"{name}@stable", prompt=PROMPT, temperature=0)
        listed = {model.id: model.version for model in client.models.list()}  # type: ignore[attr-defined]

    assert (said.choices[0].text, said.model) == (" grey", f"{name}@v{number}")
    assert listed[f"{name}@stable"] == number
    assert server.ask(PROMPT, version="stable")["version"] == number
    assert server.client.get("/generate", params={"prompt": PROMPT, "version": "stable"}).json()["text"] == "grey"
    answers = server.client.post("/compare", json={"prompt": PROMPT, "versions": ["stable", "head"]}).json()["answers"]
    assert [answer["text"] for answer in answers] == ["grey", "gold"]


@pytest.mark.parametrize("name", ["head", "base", "v12", "Stable", "1st", "a b", "x" * 65])
def test_a_name_that_names_a_version_already_or_is_none_is_refused(server: LiveServer, number: int, name: str) -> None:
    assert put(server, name, number) == 422


@pytest.mark.parametrize("path", ["/aliases/nobody", "/generate?prompt=x&version=nobody"])
def test_an_alias_that_does_not_exist_is_not_found(server: LiveServer, path: str) -> None:
    assert server.client.get(path).status_code == 404


def test_an_alias_of_no_version_is_refused(server: LiveServer) -> None:
    assert put(server, "lost", 999_999) == 404


def test_a_version_is_kept_as_long_as_an_alias_names_it(fresh: LiveServer) -> None:
    number = fresh.edit("The colour of a is", "red")["version"]
    fresh.edit("The colour of b is", "blue")
    put(fresh, "kept", number)

    def beyond() -> list[int]:
        with fresh.state.store.read() as connection:
            return versions.find_beyond_retention(connection, head=number + 1, keep_last=1, keep_every=1_000)

    assert number not in beyond()
    fresh.client.delete("/aliases/kept")
    assert number in beyond()


def test_an_alias_of_a_version_that_was_purged_says_so(fresh: LiveServer) -> None:
    edit = fresh.edit("The colour of a is", "red")
    put(fresh, "old", edit["version"])
    fresh.client.delete(f"/edits/{edit['id']}?wait=30")

    assert fresh.client.post("/admin/purge", json={"edits": [edit["id"]]}).status_code == 200

    gone = fresh.client.get("/generate", params={"prompt": "x", "version": "old"})
    assert gone.status_code == 410
    assert not any(model["id"].endswith("@old") for model in fresh.client.get("/v1/models").json()["data"])
    assert put(fresh, "new", edit["version"]) == 410
