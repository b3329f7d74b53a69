"""Requests that are sent again under one `Idempotency-Key`, over HTTP: as after a connection that broke before the answer."""

from typing import Any

import httpx
import pytest

from tests.api.live_server import LiveServer

LONG_AGO = "2000-01-01T00:00:00Z"


def sent(server: LiveServer, path: str, body: dict[str, Any], key: str = "k", **headers: str) -> httpx.Response:
    return server.client.post(path, json=body, headers={"Idempotency-Key": key, **headers})


def same_twice(server: LiveServer, path: str, body: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Send it twice under one key, and another body under it; the first answer."""
    first, again = sent(server, path, body), sent(server, path, body)
    refused = sent(server, path, body | other)

    assert (first.is_success, again.status_code) == (True, first.status_code), first.text
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers.get("location") == first.headers.get("location")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    answer: dict[str, Any] = first.json()
    if "status" in answer:  # a job or an evaluation is shown as it stands now, as an edit is
        assert again.json()["id"] == answer["id"]
    else:
        assert again.json() == answer
    return answer


@pytest.fixture
def taught(fresh: LiveServer) -> LiveServer:
    """A server with two live edits."""
    fresh.edit("The colour of moss is", "green")
    fresh.edit("The colour of coal is", "black")
    return fresh


def test_a_rollback_is_made_once(taught: LiveServer) -> None:
    done = same_twice(taught, "/admin/rollback", {"to": 1, "reason": "test"}, {"to": 0})

    assert [one["kind"] for one in taught.client.get("/versions").json()["items"]].count("rollback") == 1
    assert taught.client.get("/versions/head").json()["number"] == done["version"]


def test_a_repeated_retrain_request_returns_the_finished_retrain(taught: LiveServer) -> None:
    first = sent(taught, "/admin/retrain", {"reason": "test"})
    taught.follow(first.headers["location"], lambda job: job["finished_at"] is not None)

    again = sent(taught, "/admin/retrain", {"reason": "test"})

    assert again.status_code == 202 and again.json()["id"] == first.json()["id"]
    assert again.json()["status"] == "done"
    assert sent(taught, "/admin/retrain", {"reason": "test"}, "other").status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/admin/retrain", {"reason": "test"}, {"reason": "another"}),
        ("/admin/export", {"name": "friday"}, {"name": "saturday"}),
        ("/eval", {}, {"version": "base"}),
        ("/admin/revoke", {"author": "local", "since": LONG_AGO, "reason": "test"}, {"restore_previous": True}),
    ],
)
def test_a_repeated_request_takes_effect_once(taught: LiveServer, path: str, body: dict[str, Any], other: dict[str, Any]) -> None:
    answer = same_twice(taught, path, body, other)

    if "kind" in answer:
        listed = taught.client.get("/jobs", params={"kind": answer["kind"]}).json()["items"]
        assert [job["id"] for job in listed] == [answer["id"]]
    elif path == "/eval":
        assert [one["id"] for one in taught.client.get("/eval").json()["items"]] == [answer["id"]]
    else:
        assert len(answer["retracted"]) == 2


def test_a_repeated_purge_returns_the_first_answer(taught: LiveServer) -> None:
    kept, gone = (edit["id"] for edit in taught.client.get("/edits").json()["items"])
    assert taught.client.delete(f"/edits/{gone}?wait=20").json()["status"] == "retracted"

    assert same_twice(taught, "/admin/purge", {"edits": [gone]}, {"edits": [gone, kept]})["rows"] > 0


def test_one_key_does_not_stand_for_two_calls_nor_for_another_epoch(taught: LiveServer) -> None:
    epoch = taught.client.get("/model").json()["epoch"]
    assert sent(taught, "/admin/rollback", {"to": 1, "reason": "test"}, **{"If-Match": f'"{epoch}"'}).status_code == 200

    for path, body in (
        ("/admin/rollback", {"to": 1, "reason": "test"}),
        ("/admin/retrain", {"reason": "test"}),
        ("/edits", {"prompt": "The colour of ink is", "target": "blue"}),
    ):
        refused = sent(taught, path, body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key"), path


@pytest.mark.parametrize("path", ["/admin/rollback", "/admin/retrain", "/admin/export", "/admin/revoke", "/admin/purge", "/eval"])
def test_every_call_refuses_a_malformed_key(server: LiveServer, path: str) -> None:
    bodies = {
        "/admin/rollback": {"to": 0, "reason": "test"},
        "/admin/retrain": {"reason": "test"},
        "/admin/revoke": {"author": "nobody", "since": LONG_AGO, "reason": "test"},
        "/admin/purge": {"edits": ["no-such-edit"]},
    }

    refused = sent(server, path, bodies.get(path, {}), "x" * 256)

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


def test_a_key_with_a_blank_or_two_keys_are_refused(server: LiveServer) -> None:
    body = {"prompt": "p", "target": "t"}
    blank = server.client.post("/edits", json=body, headers={"Idempotency-Key": "a b"})
    two = server.client.post("/edits", json=body, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])

    for refused in (blank, two):
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
