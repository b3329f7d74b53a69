"""The field's protocol against a server that defers, fails and goes away: what is measured when, and that none of it is lost."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.client.evaluation_protocol import edit_and_measure
from service.client.evaluations import EvaluationClient
from service.domain.errors import Conflict, Refused
from service.evaluation.records import Record

RECORDS = [Record(id=name, prompt=f"{name} is", target="blue") for name in ("a", "b", "c")]
FIGURE = {"score": 1.0, "n": 1}


class ScriptedServer:
    """Answers as the real one does; `settles` says how each prompt's edit ends at first, `carries` whether a retrain takes it."""

    def __init__(self, *, settles: dict[str, str], carries: bool = True) -> None:
        self.settles, self.carries = settles, carries
        self.edits: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.retrains: list[str | None] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self.answer), base_url="http://server")

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.before(request) or httpx.Response(200, json=self.found(request))

    def found(self, request: httpx.Request) -> dict[str, Any]:
        body = json.loads(request.content) if request.content else {}
        match request.method, *request.url.path.strip("/").split("/"):
            case "POST", "edits", "batch":
                ids = [edit["prompt"][0] for edit in body["edits"]]
                self.edits |= {name: self.settles.get(name, "applied") for name in ids}
                return {"items": [{"id": name} for name in ids]}
            case "GET", "edits", name:
                return {"status": self.edits[name]}
            case "GET", "edits":
                wanted = request.url.params["status"]
                return {"items": [{"id": name} for name, status in self.edits.items() if status == wanted], "next": None}
            case "GET", "jobs":
                return {"items": []}
            case "POST", "admin", "retrain":
                self.retrains.append(body["mode"])
                if self.carries:
                    self.edits = {name: "consolidated" if status != "failed" else status for name, status in self.edits.items()}
                job = {"id": "job", "version": 9, "finished_at": "now", "error": "it was not accepted"}
                return job | {"status": "done" if self.carries else "failed"}
            case "GET", "versions", "head":
                return {"number": 1 + len(self.retrains)}
            case "POST", "eval":
                self.asked.append([record["id"] for record in body["edits"]])
                result = {"edits": len(body["edits"]), "greedy": {"reliability": FIGURE | {"n": len(body["edits"])}}}
                return {"id": "e", "version": body["version"], "finished_at": "now", "status": "done", "result": result}
        raise AssertionError(request.url.path)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.evaluations.IDLE_S", 0.0)
    monkeypatch.setattr("service.client.waiting.LOOK_S", 0.0)


def run(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    with server.client() as client:
        return edit_and_measure(EvaluationClient(client), RECORDS, **{"batch": 1, "capability": False, "retrain": False} | more)


def test_a_deferred_edit_is_not_asked_after_the_edit_and_carried_before_all_are_asked() -> None:
    server = ScriptedServer(settles={"b": "deferred", "c": "failed"})

    report = run(server)

    assert server.asked == [["a"], ["c"], ["a", "b", "c"]]
    assert len(server.retrains) == 1
    assert (report["after_edit"]["not_live"], report["after_all"]["not_live"]) == (1, 0)
    assert report["after_all"]["version"] == 2
    assert report["edits"] == {"consolidated": 2, "failed": 1}


def test_edits_that_no_retrain_takes_are_counted_where_all_are_asked() -> None:
    report = run(ScriptedServer(settles={"a": "deferred", "b": "deferred"}, carries=False))

    assert report["after_edit"]["not_live"] == report["after_all"]["not_live"] == 2
    assert report["after_edit"]["edits"] == 1
    assert "it was not accepted" in report["deferred"]["error"]
    assert "error" not in report


def test_a_retrain_that_is_refused_ends_in_a_sentence_and_keeps_what_was_measured() -> None:
    server, kept = ScriptedServer(settles={}), []

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/admin/retrain":
            return None
        return httpx.Response(409, json={"detail": "there is nothing to retrain"})

    server.before = refuse

    report = run(server, retrain=True, keep=lambda found: kept.append(sorted(found)))

    assert report["error"] == "there is nothing to retrain"
    assert report["after_all"]["edits"] == 3
    assert kept == [["after_edit", "edits"], ["after_all", "after_edit", "edits"], ["after_all", "after_edit", "edits", "error"]]


def test_a_retrain_is_measured_once_more() -> None:
    server = ScriptedServer(settles={"a": "deferred"})

    report = run(server, retrain=True)

    assert report["retrain"] == {"job": "job", "version": 9}
    assert report["after_retrain"]["version"] == 3
    assert server.retrains == [None, "major"]  # nothing new is left to a minor one


def test_what_is_read_is_read_again_where_the_server_is_away_for_a_moment() -> None:
    server, seen = ScriptedServer(settles={}), []

    def away(request: httpx.Request) -> httpx.Response | None:
        seen.append(request.url.path)
        if request.url.path == "/versions/head" and seen.count("/versions/head") == 1:
            raise httpx.ConnectError("away")
        if request.url.path == "/edits/a" and seen.count("/edits/a") == 1:
            return httpx.Response(503, headers={"Retry-After": "0"}, json={"detail": "busy"})
        return None

    server.before = away

    assert run(server)["after_all"]["edits"] == 3
    assert seen.count("/versions/head") == 1 + 4


def test_an_error_after_some_edits_keeps_those_that_were_asked() -> None:
    server = ScriptedServer(settles={})
    server.before = lambda request: httpx.Response(500, json={"detail": "broken"}) if len(server.asked) == 2 else None

    report = run(server)

    assert (report["error"], report["after_edit"]["edits"], report["edits"]) == ("broken", 2, {"applied": 2})


def test_an_error_before_anything_was_measured_is_raised() -> None:
    server = ScriptedServer(settles={})
    server.before = lambda request: httpx.Response(422, json={"detail": "no", "errors": [{"field": "edits[0].prompt"}]})

    with pytest.raises(Refused, match="took none"):
        run(server)


def test_a_retrain_that_failed_is_a_conflict_with_its_reason() -> None:
    with ScriptedServer(settles={}, carries=False).client() as client, pytest.raises(Conflict, match="it was not accepted"):
        EvaluationClient(client).retrain("why")
