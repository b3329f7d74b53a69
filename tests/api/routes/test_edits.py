"""`/edits` against a real server: a correction is accepted once, takes effect, can be read, and can be taken back."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from service.api.routes.edits import _wait_until
from service.lifecycle.head_follower import HeadFollower
from tests.api.live_server import LiveServer


def fresh_prompt() -> str:
    return f"The colour of stone {uuid.uuid4().hex[:8]} is"


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def count(server: LiveServer) -> int:
    """How many edits there are, read page by page."""
    seen, cursor = 0, None
    while True:
        page = server.client.get("/edits", params={"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
        seen += len(page["items"])
        cursor = page["next"]
        if cursor is None:
            return seen


def test_after_a_waited_edit_the_next_answer_is_its_target(server: LiveServer) -> None:
    prompt = fresh_prompt()

    edit = server.edit(prompt, "red", metadata={"ticket": 7}, ground_truth="grey")

    assert edit["status"] == "applied"
    assert edit["report"]["taken"] is True
    assert (edit["author"], edit["metadata"], edit["ground_truth"]) == ("local", {"ticket": 7}, "grey")
    answer = server.ask(prompt)
    assert answer["text"] == "red"
    assert answer["version"] >= edit["version"]
    assert server.ask(prompt, version="base")["text"] != "red"


def test_an_edit_posted_without_wait_answers_202_with_its_location(server: LiveServer) -> None:
    response = server.client.post("/edits", json={"prompt": fresh_prompt(), "target": "red"})

    assert response.status_code == 202
    assert response.headers["retry-after"] == "1"
    settled = server.follow(response.headers["location"], lambda edit: edit["status"] not in ("queued", "applying"))
    assert settled["id"] == response.json()["id"]
    assert settled["status"] == "applied"


def test_an_edit_is_read_as_it_was_posted(server: LiveServer) -> None:
    posted = {
        "prompt": fresh_prompt(),
        "target": "red",
        "subject": "stone \U0001f600",
        "relation": uuid.uuid4().hex,
        "rephrases": ["one", {"prompt": "two", "answer": "three", "train": False}],
        "locality": [{"prompt": "four"}],
        "portability": [{"prompt": "five", "answer": "six"}],
        "method": "locft",
        "surfaces": ["raw"],
        "metadata": {"deep": [{"a": None, "b": 1.5, "c": True, "\u202e": "</s>"}]},
    }

    edit = server.client.post("/edits", json=posted).json()
    read = server.client.get(f"/edits/{edit['id']}").json()

    assert read["status"] == "deferred"
    assert {name: read[name] for name in posted if name not in ("rephrases", "locality", "portability")} == {
        name: posted[name] for name in posted if name not in ("rephrases", "locality", "portability")
    }
    assert read["rephrases"] == [
        {"prompt": "one", "answer": None, "train": True},
        {"prompt": "two", "answer": "three", "train": False},
    ]
    assert read["locality"] == [{"prompt": "four", "answer": None, "train": True}]
    assert read["portability"] == [{"prompt": "five", "answer": "six", "train": False}]
    server.client.delete(f"/edits/{edit['id']}")


def test_replaying_an_idempotency_key_returns_the_first_edit(server: LiveServer) -> None:
    body, header = {"prompt": fresh_prompt(), "target": "red", "method": "locft"}, key()
    first = server.client.post("/edits", json=body, headers=header)
    before = count(server)

    repeated = server.client.post("/edits", json=body, headers=header)

    assert repeated.json()["id"] == first.json()["id"]
    assert repeated.status_code == 202
    assert repeated.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert count(server) == before
    server.client.delete(f"/edits/{first.json()['id']}")


def test_a_key_with_another_body_is_refused_and_changes_nothing(server: LiveServer) -> None:
    header = key()
    first = server.client.post("/edits", json={"prompt": fresh_prompt(), "target": "red", "method": "locft"}, headers=header)
    before = count(server)

    response = server.client.post("/edits", json={"prompt": fresh_prompt(), "target": "red"}, headers=header)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    assert count(server) == before
    server.client.delete(f"/edits/{first.json()['id']}")


def test_many_callers_with_one_key_make_one_edit(server: LiveServer) -> None:
    body, header = {"prompt": fresh_prompt(), "target": "red", "method": "locft"}, key()

    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: server.client.post("/edits", json=body, headers=header), range(16)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    server.client.delete(f"/edits/{answers[0].json()['id']}")


@pytest.mark.parametrize("header", ["", "x" * 256, "a\x7fb"])
def test_a_malformed_idempotency_key_is_refused(server: LiveServer, header: str) -> None:
    response = server.client.post("/edits", json={"prompt": "p", "target": "t"}, headers={"Idempotency-Key": header})

    assert response.status_code == 422


def test_posting_an_identical_edit_returns_the_existing_edit(server: LiveServer) -> None:
    prompt = fresh_prompt()
    first = server.client.post("/edits", json={"prompt": prompt, "target": "red", "method": "locft"}).json()

    response = server.client.post(
        "/edits", json={"prompt": f"  {prompt} ", "target": "red", "locality": ["new"], "method": "locft"}
    )

    assert response.status_code == 200
    assert response.json()["id"] == first["id"]
    assert [probe["prompt"] for probe in response.json()["locality"]] == ["new"]
    server.client.delete(f"/edits/{first['id']}")


def test_a_batch_is_accepted_in_order_or_not_at_all(server: LiveServer) -> None:
    batch = [{"prompt": fresh_prompt(), "target": "red", "method": "locft"} for _ in range(5)]
    before = count(server)

    refused = server.client.post("/edits/batch", json={"edits": [*batch, {"prompt": "x" * 2_000, "target": "red"}]})
    after_refusal = count(server)
    accepted = server.client.post("/edits/batch", json={"edits": batch})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "edits[5].prompt"
    assert after_refusal == before
    assert accepted.status_code == 202
    items = accepted.json()["items"]
    assert [item["prompt"] for item in items] == [edit["prompt"] for edit in batch]
    assert [item["seq"] for item in items] == list(range(items[0]["seq"], items[0]["seq"] + 5))
    for item in items:
        server.client.delete(f"/edits/{item['id']}")


def test_more_than_a_thousand_edits_are_refused(server: LiveServer) -> None:
    response = server.client.post("/edits/batch", json={"edits": [{"prompt": "p", "target": "t"}] * 1_001})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "edits"


def test_an_edit_over_the_token_limit_is_refused_with_the_limit(server: LiveServer) -> None:
    """Legal in each of its texts: it is their sum that costs."""
    before = count(server)
    costly = {"prompt": "m" * 90, "target": "red", "rephrases": [f"{n:02} is what " + "m" * 80 for n in range(64)]}
    light = {"prompt": fresh_prompt(), "target": "red"}

    alone = server.client.post("/edits", json=costly)
    among = server.client.post("/edits/batch", json={"edits": [light, costly]})

    assert (alone.status_code, among.status_code) == (422, 422)
    assert alone.json()["errors"][0]["field"] == "rephrases"
    assert among.json()["errors"][0]["field"] == "edits[1].rephrases"
    assert str(server.state.settings.limits.edit_tokens) in alone.text
    assert count(server) == before


def test_the_list_is_read_page_by_page_without_gaps(server: LiveServer) -> None:
    batch = [{"prompt": fresh_prompt(), "target": "red", "method": "locft"} for _ in range(7)]
    items = server.client.post("/edits/batch", json={"edits": batch}).json()["items"]
    expected = [item["id"] for item in reversed(items)]

    read: list[str] = []
    path = "/edits?status=deferred&limit=3"
    while path and len(read) < 7:
        response = server.client.get(path)
        read += [item["id"] for item in response.json()["items"]]
        following = response.headers.get("link", "")
        path = following.removeprefix("<").removesuffix('>; rel="next"')
        assert not path or "&status=deferred" in path

    assert read[:7] == expected
    for item in items:
        server.client.delete(f"/edits/{item['id']}")


@pytest.mark.parametrize("cursor", ["x", "YWZ0ZXI6", "YWZ0ZXI6LTE", "é", "YmVmb3JlOjE", "A" * 201])
def test_a_malformed_cursor_is_refused(server: LiveServer, cursor: str) -> None:
    assert server.client.get("/edits", params={"cursor": cursor}).status_code == 422


def test_a_retracted_edit_is_no_longer_what_the_model_says(fresh: LiveServer) -> None:
    prompt = fresh_prompt()
    edit = fresh.edit(prompt, "red")

    retracted = fresh.client.delete(f"/edits/{edit['id']}?wait=30")
    repeated = fresh.client.delete(f"/edits/{edit['id']}")

    assert (retracted.status_code, retracted.json()["status"]) == (200, "retracted")
    assert repeated.status_code == 200
    assert fresh.ask(prompt)["text"] == fresh.ask(prompt, version="base")["text"] != "red"


def test_the_newer_edit_of_a_fact_supersedes_the_older_one(server: LiveServer) -> None:
    prompt = fresh_prompt()
    older = server.edit(prompt, "red")

    newer = server.edit(prompt, "blue")

    assert newer["supersedes"] == older["id"]
    read = server.client.get(f"/edits/{older['id']}").json()
    assert (read["status"], read["superseded_by"]) == ("superseded", newer["id"])
    assert server.ask(prompt)["text"] == "blue"
    refused = server.client.delete(f"/edits/{older['id']}")
    assert refused.status_code == 409


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_edit_is_404(server: LiveServer, method: str) -> None:
    response = server.client.request(method, f"/edits/{uuid.uuid4()}")

    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "x" * 200, "target": "y"}, "prompt"),
        ({"prompt": "x", "target": "y" * 200}, "target"),
        ({"prompt": "x", "target": "y", "rephrases": ["a", "z" * 200]}, "rephrases[1].prompt"),
        ({"prompt": "x", "target": "y", "portability": [{"prompt": "z", "answer": "w" * 200}]}, "portability[0].answer"),
    ],
)
def test_a_text_over_the_context_is_refused_by_field_and_never_cut(server: LiveServer, body: dict[str, Any], field: str) -> None:
    response = server.client.post("/edits", json=body)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert "tokens" in response.json()["detail"]


def test_waiting_ends_when_the_server_is_asked_to_stop(server: LiveServer) -> None:
    edit = server.client.post("/edits", json={"prompt": fresh_prompt(), "target": "red", "method": "locft"}).json()
    stop = threading.Timer(0.2, server.state.draining.set)
    stop.start()
    began = time.monotonic()
    try:
        asyncio.run(_wait_until(server.state, [edit["id"]], 60, lambda _: False, "here"))
        assert server.client.get("/health/ready").status_code == 503
    finally:
        stop.join()
        server.state.draining.clear()

    assert time.monotonic() - began < 20


def test_waiting_ends_when_its_time_is_over(server: LiveServer) -> None:
    edit = server.client.post("/edits", json={"prompt": fresh_prompt(), "target": "red", "method": "locft"}).json()
    began = time.monotonic()

    asyncio.run(_wait_until(server.state, [edit["id"]], 0.3, lambda _: False, "here"))

    assert 0.3 <= time.monotonic() - began < 10


def test_wait_returns_only_once_this_process_answers_with_the_edit(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = server.edit(fresh_prompt(), "red")
    current = server.state.lifecycle.follower.current
    behind = replace(current, epoch=current.epoch - 1)
    # What is read, not what is kept: the thread that follows the head would bring that up to date in the middle of this.
    monkeypatch.setattr(HeadFollower, "current", property(lambda _: behind))
    began = time.monotonic()

    asyncio.run(_wait_until(server.state, [edit["id"]], 0.5, lambda status: status.is_settled, "here"))

    assert time.monotonic() - began >= 0.5
