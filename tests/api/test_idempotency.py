"""Repeated requests with one `Idempotency-Key` over HTTP, as after a connection that broke before the answer."""

from typing import Any

import httpx
import pytest

from tests.api.live_server import LiveServer

LONG_AGO = "2000-01-01T00:00:00Z"


def send(server: LiveServer, path: str, body: dict[str, Any], key: str = "k", **headers: str) -> httpx.Response:
    return server.client.post(path, json=body, headers={"Idempotency-Key": key, **headers})


def send_twice(server: LiveServer, path: str, body: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Send a body twice with one key, then another body with the same key. Returns the first answer."""
    first, repeated = send(server, path, body), send(server, path, body)
    refused = send(server, path, body | other)

    assert (first.is_success, repeated.status_code) == (True, first.status_code), first.text
    assert "idempotency-replayed" not in first.headers
    assert repeated.headers["idempotency-replayed"] == "true"
    assert repeated.headers.get("location") == first.headers.get("location")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    answer: dict[str, Any] = first.json()
    if "status" in answer:  # a job or an evaluation is answered with its present status, as an edit is
        assert repeated.json()["id"] == answer["id"]
    else:
        assert repeated.json() == answer
    return answer


@pytest.fixture
def edited(fresh: LiveServer) -> LiveServer:
    """A server with two live edits."""
    fresh.edit("The colour of moss is", "green")
    fresh.edit("The colour of coal is", "black")
    return fresh


def test_a_rollback_is_made_once(edited: LiveServer) -> None:
    done = send_twice(edited, "/admin/rollback", {"to": 1, "reason": "test"}, {"to": 0})

    assert [version["kind"] for version in edited.client.get("/versions").json()["items"]].count("rollback") == 1
    assert edited.client.get("/versions/head").json()["number"] == done["version"]


def test_a_repeated_retrain_request_returns_the_finished_retrain(edited: LiveServer) -> None:
    first = send(edited, "/admin/retrain", {"reason": "test"})
    edited.follow(first.headers["location"], lambda job: job["finished_at"] is not None)

    repeated = send(edited, "/admin/retrain", {"reason": "test"})

    assert repeated.status_code == 202 and repeated.json()["id"] == first.json()["id"]
    assert repeated.json()["status"] == "done"
    assert send(edited, "/admin/retrain", {"reason": "test"}, "other").status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/admin/retrain", {"reason": "test"}, {"reason": "another"}),
        ("/admin/export", {"name": "friday"}, {"name": "saturday"}),
        ("/eval", {}, {"version": "base"}),
        ("/admin/revoke", {"author": "local", "since": LONG_AGO, "reason": "test"}, {"restore_previous": True}),
    ],
)
def test_a_repeated_request_takes_effect_once(edited: LiveServer, path: str, body: dict[str, Any], other: dict[str, Any]) -> None:
    answer = send_twice(edited, path, body, other)

    if "kind" in answer:
        listed = edited.client.get("/jobs", params={"kind": answer["kind"]}).json()["items"]
        assert [job["id"] for job in listed] == [answer["id"]]
    elif path == "/eval":
        assert [evaluation["id"] for evaluation in edited.client.get("/eval").json()["items"]] == [answer["id"]]
    else:
        assert len(answer["retracted"]) == 2


def test_a_repeated_purge_returns_the_first_answer(edited: LiveServer) -> None:
    live, retracted = (edit["id"] for edit in edited.client.get("/edits").json()["items"])
    assert edited.client.delete(f"/edits/{retracted}?wait=20").json()["status"] == "retracted"

    assert send_twice(edited, "/admin/purge", {"edits": [retracted]}, {"edits": [retracted, live]})["rows"] > 0


def test_a_key_used_for_one_call_is_refused_for_others_and_for_another_epoch(edited: LiveServer) -> None:
    epoch = edited.client.get("/model").json()["epoch"]
    assert send(edited, "/admin/rollback", {"to": 1, "reason": "test"}, **{"If-Match": f'"{epoch}"'}).status_code == 200

    for path, body in (
        ("/admin/rollback", {"to": 1, "reason": "test"}),
        ("/admin/retrain", {"reason": "test"}),
        ("/edits", {"prompt": "The colour of ink is", "target": "blue"}),
    ):
        refused = send(edited, path, body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key"), path


@pytest.mark.parametrize("path", ["/admin/rollback", "/admin/retrain", "/admin/export", "/admin/revoke", "/admin/purge", "/eval"])
def test_every_call_refuses_a_malformed_key(server: LiveServer, path: str) -> None:
    bodies = {
        "/admin/rollback": {"to": 0, "reason": "test"},
        "/admin/retrain": {"reason": "test"},
        "/admin/revoke": {"author": "nobody", "since": LONG_AGO, "reason": "test"},
        "/admin/purge": {"edits": ["no-such-edit"]},
    }

    refused = send(server, path, bodies.get(path, {}), "x" * 256)

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


def test_a_key_with_a_blank_or_two_keys_are_refused(server: LiveServer) -> None:
    body = {"prompt": "p", "target": "t"}
    blank = server.client.post("/edits", json=body, headers={"Idempotency-Key": "a b"})
    two = server.client.post("/edits", json=body, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])

    for refused in (blank, two):
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
