"""The field's protocol against a server that defers edits, fails and is away: each moment is measured, and nothing is lost."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.client.errata_client import ErrataClient
from service.client.evaluation_protocol import edit_and_measure
from service.client.evaluations import EvaluationClient
from service.domain.errors import Conflict, Refused
from service.evaluation.records import Record

RECORDS = [Record(id=name, prompt=f"{name} is", target="blue") for name in ("a", "b", "c")]
FIGURE = {"score": 1.0, "n": 1}


class ScriptedServer:
    """Answers as a real server; `settles` gives the first settled status of an edit, `retrains_well` whether retrains succeed."""

    def __init__(self, *, settles: dict[str, str], retrains_well: bool = True) -> None:
        self.settles, self.retrains_well = settles, retrains_well
        self.edits: dict[str, str] = {}
        self.asked_ids: list[list[str]] = []
        self.retrains: list[str | None] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def client(self) -> ErrataClient:
        return ErrataClient("http://server", transport=httpx.MockTransport(self.answer), sleep=lambda _: None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.before(request) or httpx.Response(200, json=self.body_of(request))

    def body_of(self, request: httpx.Request) -> dict[str, Any]:
        body = json.loads(request.content) if request.content else {}
        match request.method, *request.url.path.strip("/").split("/"):
            case "POST", "edits", "batch":
                ids = [edit["prompt"][0] for edit in body["edits"]]
                self.edits |= {name: self.settles.get(name, "applied") for name in ids}
                return {"items": [{"id": name} for name in ids]}
            case "GET", "edits", name:
                return {"status": self.edits[name]}
            case "GET", "edits":
                status_asked = request.url.params["status"]
                return {"items": [{"id": name} for name, status in self.edits.items() if status == status_asked], "next": None}
            case "GET", "jobs":
                return {"items": [], "next": None}
            case "POST", "admin", "retrain":
                self.retrains.append(body["mode"])
                if self.retrains_well:
                    self.edits = {name: "consolidated" if status != "failed" else status for name, status in self.edits.items()}
                job = {"id": "job", "version": 9, "finished_at": "now", "error": "it was not accepted"}
                return job | {"status": "done" if self.retrains_well else "failed"}
            case "GET", "versions", "head":
                return {"number": 1 + len(self.retrains)}
            case "POST", "eval":
                self.asked_ids.append([record["id"] for record in body["edits"]])
                result = {"edits": len(body["edits"]), "greedy": {"reliability": FIGURE | {"n": len(body["edits"])}}}
                return {"id": "e", "version": body["version"], "finished_at": "now", "status": "done", "result": result}
        raise AssertionError(request.url.path)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.evaluations.IDLE_S", 0.0)
    monkeypatch.setattr("service.client.waiting.POLL_S", 0.0)


def run(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    with server.client() as client:
        return edit_and_measure(EvaluationClient(client), RECORDS, **{"batch": 1, "capability": False, "retrain": False} | more)


def test_a_deferred_edit_is_asked_only_at_the_end_once_it_is_live() -> None:
    server = ScriptedServer(settles={"b": "deferred", "c": "failed"})

    report = run(server)

    assert server.asked_ids == [["a"], ["c"], ["a", "b", "c"]]
    assert len(server.retrains) == 1
    assert (report["after_edit"]["not_live"], report["after_all"]["not_live"]) == (1, 0)
    assert report["after_all"]["version"] == 2
    assert report["edits"] == {"consolidated": 2, "failed": 1}


def test_edits_that_stay_deferred_are_counted_in_after_all() -> None:
    report = run(ScriptedServer(settles={"a": "deferred", "b": "deferred"}, retrains_well=False))

    assert report["after_edit"]["not_live"] == report["after_all"]["not_live"] == 2
    assert report["after_edit"]["edits"] == 1
    assert "it was not accepted" in report["deferred"]["error"]
    assert "error" not in report


def test_a_refused_retrain_ends_in_a_sentence_and_keeps_the_measurements() -> None:
    server, saved = ScriptedServer(settles={}), []

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/admin/retrain":
            return None
        return httpx.Response(409, json={"detail": "there is nothing to retrain"})

    server.before = refuse

    report = run(server, retrain=True, save=lambda report: saved.append(sorted(report)))

    assert report["error"] == "there is nothing to retrain"
    assert report["after_all"]["edits"] == 3
    assert saved == [["after_edit", "edits"], ["after_all", "after_edit", "edits"], ["after_all", "after_edit", "edits", "error"]]


def test_versions_are_measured_once_more_after_a_retrain() -> None:
    server = ScriptedServer(settles={"a": "deferred"})

    report = run(server, retrain=True)

    assert report["retrain"] == {"job": "job", "version": 9}
    assert report["after_retrain"]["version"] == 3
    assert server.retrains == [None, "major"]  # nothing new is left to a minor one


def test_a_read_is_repeated_while_the_server_is_away() -> None:
    server, paths = ScriptedServer(settles={}), []

    def answer_at_second_call(request: httpx.Request) -> httpx.Response | None:
        paths.append(request.url.path)
        if request.url.path == "/versions/head" and paths.count("/versions/head") == 1:
            raise httpx.ConnectError("away")
        if request.url.path == "/edits/a" and paths.count("/edits/a") == 1:
            return httpx.Response(503, headers={"Retry-After": "0"}, json={"detail": "busy"})
        return None

    server.before = answer_at_second_call

    assert run(server)["after_all"]["edits"] == 3
    assert paths.count("/versions/head") == 1 + 4


def test_an_error_after_some_edits_keeps_their_measurements() -> None:
    server = ScriptedServer(settles={})
    server.before = lambda request: httpx.Response(500, json={"detail": "broken"}) if len(server.asked_ids) == 2 else None

    report = run(server)

    assert (report["error"], report["after_edit"]["edits"], report["edits"]) == ("broken", 2, {"applied": 2})


def test_an_error_before_any_measurement_is_raised() -> None:
    server = ScriptedServer(settles={})
    server.before = lambda request: httpx.Response(422, json={"detail": "no", "errors": [{"field": "edits[0].prompt"}]})

    with pytest.raises(Refused, match="took none"):
        run(server)


def test_a_failed_retrain_is_a_conflict_with_its_reason() -> None:
    with ScriptedServer(settles={}, retrains_well=False).client() as client, pytest.raises(Conflict, match="it was not accepted"):
        EvaluationClient(client).retrain("why")
