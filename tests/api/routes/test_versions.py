"""Versions, rollback, retrain, jobs, evaluations, health and the page, against a real server."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import httpx
import pytest
import torch

from service.editors.baft.settings import BaftSettings
from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.builders import save_model
from tests.servers import postgres_database, redis_prefix


def put_edit(server: LiveServer) -> dict[str, Any]:
    return server.edit(f"The colour of stone {uuid.uuid4().hex[:8]} is", "red")


def head(server: LiveServer) -> dict[str, Any]:
    version: dict[str, Any] = server.client.get("/versions/head").json()
    return version


@pytest.fixture(params=["sqlite and in process", "postgres and redis"])
def anywhere(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """The same server on either pair of a database and a buffer."""
    if request.param == "sqlite and in process":
        with live_server(tiny_settings(tiny_model, tmp_path)) as running:
            yield running
        return
    with postgres_database() as database, redis_prefix() as (redis, prefix):
        elsewhere = {"database_url": database, "redis_url": redis, "redis_prefix": prefix}
        with live_server(tiny_settings(tiny_model, tmp_path, **elsewhere)) as running:
            yield running


def test_edit_retrain_and_rollback_over_http(anywhere: LiveServer) -> None:
    prompts = {"The capital of A is": "B", "The colour of moss is": "green"}
    before = {prompt: anywhere.ask(prompt)["text"] for prompt in prompts}
    ids = [anywhere.edit(prompt, target)["id"] for prompt, target in prompts.items()]

    queued = anywhere.client.post("/admin/retrain", json={"reason": "test"})
    assert queued.status_code == 202
    job = anywhere.follow(queued.headers["location"], lambda job: job["finished_at"] is not None)
    assert (job["status"], job["progress"], job["error"]) == ("done", 1.0, None)
    retrained = head(anywhere)
    assert (retrained["kind"], retrained["number"], retrained["edits_counted"]) == ("locft", job["version"], 2)
    assert {prompt: anywhere.ask(prompt)["text"] for prompt in prompts} == prompts

    measured = anywhere.client.post("/eval", json={"version": "head", "edits": "live"})
    assert measured.status_code == 202
    done = anywhere.follow(measured.headers["location"], lambda evaluation: evaluation["status"] in ("done", "failed"))
    assert done["result"]["greedy"]["reliability"] == {"score": 1.0, "n": 4}  # two edits on two surfaces
    assert done["version"] == retrained["number"]

    rolled = anywhere.client.post(
        "/admin/rollback", json={"to": 0, "reason": "test"}, headers={"If-Match": f'"{anywhere.ask("x")["epoch"]}"'}
    )
    assert rolled.status_code == 200
    assert rolled.json()["restored"] == 0
    assert sorted(rolled.json()["rolled_back"]) == sorted(ids)
    assert {prompt: anywhere.ask(prompt)["text"] for prompt in prompts} == before
    assert {anywhere.client.get(f"/edits/{edit_id}").json()["status"] for edit_id in ids} == {"rolled_back"}
    assert {prompt: anywhere.ask(prompt, version=retrained["number"])["text"] for prompt in prompts} == prompts

    numbers = [version["number"] for version in anywhere.client.get("/versions").json()["items"]]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] == rolled.json()["version"]


def test_a_rollback_on_an_old_epoch_is_412_and_changes_nothing(server: LiveServer) -> None:
    put_edit(server)
    before = head(server)

    response = server.client.post("/admin/rollback", json={"to": 0, "reason": "test"}, headers={"If-Match": '"0"'})

    assert response.status_code == 412
    assert head(server) == before


def test_a_rollback_to_an_unknown_version_names_the_field(server: LiveServer) -> None:
    response = server.client.post("/admin/rollback", json={"to": 99_999, "reason": "test"})

    assert [fault["field"] for fault in response.json()["errors"]] == ["to"]


def test_a_rollback_to_the_head_is_409(server: LiveServer) -> None:
    response = server.client.post("/admin/rollback", json={"to": head(server)["number"], "reason": "test"})

    assert response.status_code == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"to": 99_999, "reason": "x"}, 404),
        ({"to": -1, "reason": "x"}, 422),
        ({"to": "0", "reason": "x"}, 422),
        ({"to": True, "reason": "x"}, 422),
        ({"to": 0}, 422),
        ({"to": 0, "reason": " "}, 422),
        ({"to": 0, "reason": "x", "force": True}, 422),
    ],
)
def test_a_wrong_rollback_is_refused(server: LiveServer, body: dict[str, Any], status: int) -> None:
    assert server.client.post("/admin/rollback", json=body).status_code == status


@pytest.mark.parametrize("if_match", ["x", '"-1"', "*", '"1.0"', '"' + "9" * 40 + '"'])
def test_an_if_match_that_is_no_epoch_is_refused(server: LiveServer, if_match: str) -> None:
    response = server.client.post("/admin/rollback", json={"to": 0, "reason": "x"}, headers={"If-Match": if_match})

    assert response.status_code == 422


def test_a_retrain_with_nothing_to_do_is_409(fresh: LiveServer) -> None:
    assert fresh.client.post("/admin/retrain", json={"reason": "test"}).status_code == 409


def test_versions_are_read_by_number_head_and_base(server: LiveServer) -> None:
    edit = put_edit(server)

    assert head(server)["head"] is True
    assert server.client.get("/versions/base").json() == server.client.get("/versions/0").json()
    read = server.client.get(f"/versions/{edit['version']}").json()
    assert (read["kind"], read["author"], len(read["digest"])) == ("baft", "local", 64)


@pytest.mark.parametrize(("number", "status"), [("99999", 404), ("-1", 422), ("1.5", 422), ("latest", 422), ("9" * 19, 422)])
def test_an_unknown_version_is_refused(server: LiveServer, number: str, status: int) -> None:
    assert server.client.get(f"/versions/{number}").status_code == status
    assert server.client.get(f"/versions/{number}/bases").status_code == status


def test_the_list_of_versions_is_read_page_by_page(server: LiveServer) -> None:
    put_edit(server)
    first = server.client.get("/versions?limit=1")

    second = server.client.get(first.headers["link"].split(";")[0].strip("<>"))

    assert second.json()["items"][0]["number"] == first.json()["items"][0]["number"] - 1


def squared_variation(bases: list[dict[str, float]], name: str) -> float:
    weights = [basis[name] for basis in bases]
    return variance(weights) / fmean(weights) ** 2


def test_the_bases_of_a_version_are_gates_between_0_and_1(server: LiveServer) -> None:
    put_edit(server)

    bases = server.client.get("/versions/head/bases").json()

    assert bases["version"] == head(server)["number"]
    assert len(bases["blocks"]) >= 1
    for block in bases["blocks"]:
        assert len(block["bases"]) == server.state.settings.of_method(BaftSettings).rank
        assert block["final_squared_variation"] == pytest.approx(squared_variation(block["bases"], "edits"), abs=1e-4)
        assert block["running_squared_variation"] == pytest.approx(squared_variation(block["bases"], "running_mean"), abs=1e-4)
        for basis in block["bases"]:
            assert 0 <= basis["edits"] <= 1
            assert 0 <= basis["unrelated"] <= 1
            assert basis["rephrases"] is None
    assert server.client.get("/versions/0/bases").json() == {"version": 0, "blocks": []}


def test_an_evaluation_of_records_that_are_not_stored_stores_no_edit(server: LiveServer) -> None:
    record = {"prompt": "The colour of tar is", "target": "black", "locality": ["The colour of snow is"]}
    before = [edit["id"] for edit in server.client.get("/edits").json()["items"]]

    queued = server.client.post("/eval", json={"version": "base", "edits": [record]})
    done = server.follow(queued.headers["location"], lambda evaluation: evaluation["status"] in ("done", "failed"))

    assert done["status"] == "done"
    assert done["result"]["greedy"]["locality"]["score"] == 1.0  # the base model against itself
    assert [edit["id"] for edit in server.client.get("/edits").json()["items"]] == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"edits": "all"}, 422),
        ({"edits": []}, 422),
        ({"edits": ["no-such-edit"]}, 404),
        ({"edits": [7]}, 422),
        ({"edits": [{"prompt": "a", "target": "b"}, "c"]}, 422),
        ({"edits": [{"prompt": "a", "target": " "}]}, 422),
        ({"version": 99_999, "edits": "live"}, 404),
        ({"version": "v1", "edits": "live"}, 422),
    ],
)
def test_a_wrong_evaluation_is_refused(server: LiveServer, body: dict[str, Any], status: int) -> None:
    assert server.client.post("/eval", json=body).status_code == status


@pytest.mark.parametrize("path", ["/jobs/", "/eval/"])
def test_an_unknown_job_or_evaluation_is_404(server: LiveServer, path: str) -> None:
    assert server.client.get(f"{path}{uuid.uuid4()}").status_code == 404


def test_health_and_model_say_what_is_served(server: LiveServer) -> None:
    put_edit(server)

    assert server.client.get("/health/live").json()["status"] == "ok"
    assert server.client.get("/health/startup").json()["status"] == "ok"
    ready = server.client.get("/health/ready")
    assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"})
    model = server.client.get("/model").json()
    version = head(server)
    assert (model["head"], model["edits_counted"], model["window"]) == (
        version["number"],
        version["edits_counted"],
        version["window"],
    )
    assert (model["fingerprint"], model["context"]) == (server.state.base.fingerprint, server.state.base.context_length)
    assert model["surfaces"] == ["raw", "chat"]


def test_a_model_replaced_on_disk_is_reported_while_the_server_continues(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    with live_server(tiny_settings(folder, tmp_path / "data")) as server:
        before = server.ask("The capital of Australia is")
        save_model(folder, seed=1)
        server.state.seal.check_files()

        ready = server.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert server.client.get("/model").json()["degraded"] == ready.json()["checks"]["files"] == server.state.seal.note
        assert server.ask("The capital of Australia is") == before


def test_weights_changed_in_memory_are_refused_to_serve(fresh: LiveServer) -> None:
    with torch.no_grad():
        next(iter(fresh.state.base.model.parameters())).view(-1)[0] += 1
    fresh.state.seal.check_memory()

    answer = fresh.client.post("/generate", json={"prompt": "x", "max_new_tokens": 2})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "restart" in answer.json()["detail"]
    ready = fresh.client.get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]["weights"]) == (503, fresh.state.seal.failure)


def test_a_server_whose_database_is_gone_is_not_ready(fresh: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.domain.errors import Unavailable

    def away() -> None:
        raise Unavailable("The database cannot be reached.")

    monkeypatch.setattr(fresh.state.store, "read", away)

    assert fresh.client.get("/health/ready").status_code == 503
    assert fresh.client.get("/health/ready").json()["checks"]["database"] == "The database cannot be reached."
    assert fresh.client.get("/health/live").status_code == 200
    assert fresh.client.post("/generate", json={"prompt": "x", "max_new_tokens": 2}).status_code == 200
    answer = fresh.client.get("/edits")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css"), ("/page.svg", "image/svg")]
)
def test_the_page_needs_nothing_from_elsewhere(server: LiveServer, path: str, kind: str) -> None:
    response = server.client.get(path)

    assert response.headers["content-type"].startswith(kind)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert "http://" not in response.text.replace("http://www.w3.org", "")
    assert "https://" not in response.text
    assert "innerHTML" not in response.text
    assert "onclick" not in response.text


def test_the_docs_lead_to_the_description(server: LiveServer) -> None:
    response = server.client.get("/docs")

    assert (response.status_code, response.headers["location"]) == (307, "/openapi.json")
    assert server.client.get("/openapi.json").json()["info"]["title"] == "Errata"


THREADS_OF_OTHER_ROUTES = 40  # anyio's default, which starlette keeps


def test_answers_go_on_while_every_other_call_waits_for_the_database(fresh: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    away, crowded = threading.Event(), threading.Semaphore(0)
    read = fresh.state.store.read

    def frozen() -> object:
        crowded.release()
        away.wait(30)
        return read()

    monkeypatch.setattr(fresh.state.store, "read", frozen)
    with ThreadPoolExecutor(60) as callers:
        waiting = [callers.submit(httpx.get, f"http://127.0.0.1:{fresh.port}/edits", timeout=40) for _ in range(60)]
        try:
            for _ in range(THREADS_OF_OTHER_ROUTES):
                assert crowded.acquire(timeout=20)
            answer = fresh.client.post("/generate", json={"prompt": "x", "max_new_tokens": 2}, timeout=10)
        finally:
            away.set()
        answered = [call.result().status_code for call in waiting]

    assert answer.status_code == 200
    assert set(answered) == {200}
