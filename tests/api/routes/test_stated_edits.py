"""The context tier over HTTP: an accepted edit that is not live yet is stated in front of the prompts that it is about."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.live_server import LiveServer, live_server, tiny_settings


@pytest.fixture(scope="module")
def stating(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with the context tier. Edits of a consolidating method wait for a retrain, which is not due."""
    window = {"deferred": 100, "deferred_s": 1e9, "context": "on"}
    with live_server(tiny_settings(tiny_model, tmp_path_factory.mktemp("stating"), window=window)) as running:
        yield running


def post_waiting(server: LiveServer, name: str, **more: object) -> str:
    """Post an edit that waits for a retrain; return its id."""
    edit = {"prompt": name, "target": "r", "subject": name, "method": "locft", **more}
    response = server.client.post("/edits", json=edit)
    assert response.status_code == 202, response.text
    assert response.json()["status"] == "deferred"
    return str(response.json()["id"])


def fresh_name() -> str:
    return f"Q{uuid.uuid4().hex[:5]}"


def test_an_edit_that_waits_stands_in_front_of_the_next_prompt_about_it(stating: LiveServer) -> None:
    name = fresh_name()
    edit_id = post_waiting(stating, name)
    prompt = f"What colour is {name}?"

    answer = stating.ask(prompt, explain=True)

    same = stating.ask(f'"{name}" is answered with "r".\n{prompt}', version="base")
    alone = stating.ask(prompt, version="base")
    assert answer["text"] == same["text"]
    assert answer["prompt_tokens"] == alone["prompt_tokens"]
    assert answer["prompt_tokens"] + answer["context_tokens"] == same["prompt_tokens"]
    assert alone["context_tokens"] == same["context_tokens"] == 0
    assert answer["explanation"] == {"acted": False, "in_scope": [], "count": 0, "stated": [edit_id]}
    assert stating.client.get(f"/edits/{edit_id}").json()["stated"]
    other = stating.ask("What colour is grass?")
    assert (other["context_tokens"], other["text"]) == (0, stating.ask("What colour is grass?", version="base")["text"])


def test_the_version_that_stated_an_edit_goes_on_stating_it_after_its_retraction(stating: LiveServer) -> None:
    name = fresh_name()
    edit_id = post_waiting(stating, name)
    before = stating.ask(f"What colour is {name}?")

    assert stating.client.delete(f"/edits/{edit_id}").json()["status"] == "retracted"

    after = stating.ask(f"What colour is {name}?")
    pinned = stating.ask(f"What colour is {name}?", version=before["version"])
    assert (before["context_tokens"] > 0, after["context_tokens"]) == (True, 0)
    assert pinned["context_tokens"] == before["context_tokens"]
    assert not stating.client.get(f"/edits/{edit_id}").json()["stated"]
    version = stating.client.get(f"/versions/{after['version']}").json()
    assert (version["kind"], version["parent"]) == ("context", before["version"])
    stated = stating.client.get(f"/versions/{before['version']}").json()["stated"]
    assert edit_id in stated and set(stated) - set(version["stated"]) == {edit_id}


def test_what_an_author_posted_is_not_stated_after_it_was_revoked(stating: LiveServer) -> None:
    name = fresh_name()
    edit_id = post_waiting(stating, name)
    edit = stating.client.get(f"/edits/{edit_id}").json()
    assert stating.ask(f"{name}?")["context_tokens"] > 0

    body = {"author": edit["author"], "since": edit["created_at"], "reason": "a test"}
    assert stating.client.post("/admin/revoke", json=body).status_code == 200

    assert stating.ask(f"{name}?")["context_tokens"] == 0


def test_a_prompt_that_fits_alone_is_never_refused_for_what_is_stated(stating: LiveServer) -> None:
    name = fresh_name()
    post_waiting(stating, name)
    context = stating.state.base.context_length
    prompt = f"{name} " + "a" * (context - 40)
    tokens = stating.ask(prompt, max_new_tokens=1)["prompt_tokens"]

    answer = stating.ask(prompt, max_new_tokens=context - tokens)

    assert (answer["context_tokens"], answer["completion_tokens"] <= context - tokens) == (0, True)


def test_an_edit_that_becomes_live_is_stated_no_more(stating: LiveServer) -> None:
    name = fresh_name()

    edit = stating.edit(f"{name} is", "red", subject=name)

    assert (edit["status"], edit["stated"]) == ("applied", False)
    answer = stating.ask(f"{name} is")
    assert (answer["text"], answer["context_tokens"]) == ("red", 0)
