"""Exports, jobs, revoking, purging and what a version says of itself, against a real server."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from service.lifecycle.job_hooks import JobHooks
from service.lm.load_errata import load
from service.store import reservoir
from tests.api.live_server import LiveServer, live_server, tiny_settings

KEEPING = {"size": 5, "callers": ["desk"]}


def ended(job: dict[str, Any]) -> bool:
    return job["finished_at"] is not None


def follow(server: LiveServer, response: Any) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    return server.follow(response.headers["location"], ended)


def retrain(server: LiveServer, **more: Any) -> dict[str, Any]:
    return follow(server, server.client.post("/admin/retrain", json={"reason": "test", **more}))


def test_an_export_answers_as_the_head_does(fresh: LiveServer) -> None:
    prompt = "The colour of moss is"
    fresh.edit(prompt, "green")

    job = follow(fresh, fresh.client.post("/admin/export", json={"name": "friday", "max_shard_size": "20KB"}))

    assert (job["kind"], job["status"], job["progress"], job["error"]) == ("export", "done", 1.0, None)
    folder = fresh.state.exports / "friday"
    assert job["result"]["path"] == str(folder)
    assert (job["result"]["window"], job["result"]["version"]) == (1, 1)
    assert job["log"][0]["message"] == "begun"
    assert json.loads((folder / "errata.json").read_text())["base"] == "tiny"  # and not the path to it on this machine
    model, tokenizer = load(folder)
    inputs = tokenizer(prompt, return_tensors="pt")
    out = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, max_new_tokens=8)
    answer = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip() == fresh.ask(prompt)["text"] == "green"


def test_consolidating_exports_a_version_without_a_window(fresh: LiveServer) -> None:
    fresh.edit("The colour of moss is", "green")

    job = follow(fresh, fresh.client.post("/admin/export", json={"consolidate": True}))

    head = fresh.client.get("/versions/head").json()
    assert (job["status"], job["result"]["window"], job["result"]["version"]) == ("done", head["window"], head["number"])
    assert (head["kind"], head["window"], head["minors"]) == ("locft", 0, 0)
    assert not (Path(job["result"]["path"]) / "load_errata.py").exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "../x"}, 422),
        ({"name": "a/b"}, 422),
        ({"name": ".hidden"}, 422),
        ({"name": "A"}, 422),
        ({"name": ""}, 422),
        ({"name": "x\n"}, 422),
        ({"version": 99_999}, 404),
        ({"version": -1}, 422),
        ({"version": "latest"}, 422),
        ({"version": 0, "consolidate": True}, 422),
        ({"version": True}, 422),
        ({"max_shard_size": "5"}, 422),
        ({"max_shard_size": "0KB"}, 422),
        ({"mode": "all"}, 422),
        ({"path": "/tmp/x"}, 422),
    ],
)
def test_a_wrong_export_is_refused_and_writes_nothing(server: LiveServer, body: dict[str, Any], status: int) -> None:
    jobs = server.client.get("/jobs?kind=export").json()

    assert server.client.post("/admin/export", json=body).status_code == status

    assert server.client.get("/jobs?kind=export").json() == jobs


def test_a_name_that_is_taken_is_409(server: LiveServer) -> None:
    follow(server, server.client.post("/admin/export", json={"version": 0, "name": "base"}))

    assert server.client.post("/admin/export", json={"version": 0, "name": "base"}).status_code == 409


def test_jobs_are_listed_by_kind_and_status_and_page_by_page(fresh: LiveServer) -> None:
    for number in range(3):
        fresh.edit(f"The colour of stone {number} is", "red")
    retrain(fresh)

    everything = fresh.client.get("/jobs").json()["items"]
    assert [job["kind"] for job in everything] == ["retrain", "apply", "apply", "apply"]
    assert {job["kind"] for job in fresh.client.get("/jobs?kind=apply").json()["items"]} == {"apply"}
    assert fresh.client.get("/jobs?status=failed").json()["items"] == []
    narrowed = fresh.client.get("/jobs?kind=retrain&kind=refit&status=done&limit=1").json()["items"]
    assert [job["kind"] for job in narrowed] == ["retrain"]
    seen: list[str] = []
    path: str | None = "/jobs?limit=1&status=done&status=failed"
    while path is not None:
        page = fresh.client.get(path)
        seen += [job["id"] for job in page.json()["items"]]
        path = page.headers["link"].split(";")[0].strip("<>") if "link" in page.headers else None
    assert seen == [job["id"] for job in everything]


@pytest.mark.parametrize("query", ["kind=all", "status=live", "limit=0", "limit=201", "cursor=x", "cursor=YWZ0ZXI6MQ", "a=b"])
def test_a_wrong_list_of_jobs_is_refused(server: LiveServer, query: str) -> None:
    assert server.client.get(f"/jobs?{query}").status_code == 422


def test_a_list_that_goes_on_after_a_job_that_never_was_is_404(server: LiveServer) -> None:
    from service.api.pagination import encode_id

    assert server.client.get(f"/jobs?cursor={encode_id('a-b')}").status_code == 404


def test_a_job_that_is_over_or_that_edits_wait_for_is_not_cancelled(server: LiveServer) -> None:
    server.edit("The colour of clay is", "grey")
    (job,) = server.client.get("/jobs?kind=apply&limit=1").json()["items"]
    export = follow(server, server.client.post("/admin/export", json={"version": 0, "name": "over"}))

    assert server.client.delete(f"/jobs/{job['id']}").status_code == 409
    assert server.client.delete(f"/jobs/{export['id']}").status_code == 409
    assert server.client.delete("/jobs/no-such-job").status_code == 404


def test_a_retrain_that_is_cancelled_leaves_the_head_as_it_was(fresh: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.edit("The colour of moss is", "green")
    before = fresh.client.get("/versions/head").json()
    began, go_on = threading.Event(), threading.Event()
    keep_progress = JobHooks._progress

    def held_up(hooks: JobHooks, share: float, stage: str) -> None:
        if threading.current_thread().name == "errata-retrain":
            began.set()
            assert go_on.wait(30)
        keep_progress(hooks, share, stage)

    monkeypatch.setattr(JobHooks, "_progress", held_up)
    queued = fresh.client.post("/admin/retrain", json={"reason": "test", "mode": "major"})
    assert began.wait(30)
    cancelled = fresh.client.delete(queued.headers["location"])
    repeated = fresh.client.delete(queued.headers["location"])
    go_on.set()

    assert (cancelled.status_code, repeated.status_code) == (202, 202)
    assert cancelled.json()["cancelled_by"] == "local"
    job = fresh.follow(queued.headers["location"], ended)
    assert job["status"] == "cancelled"
    after = fresh.client.get("/versions/head").json()
    assert (after["number"], after["digest"]) == (before["number"], before["digest"])
    assert fresh.ask("The colour of moss is")["text"] == "green"


def test_a_version_lists_its_measurements_with_their_time_and_method(fresh: LiveServer) -> None:
    fresh.edit("The colour of moss is", "green")
    retrain(fresh, mode="major")

    version, model = fresh.client.get("/versions/head").json(), fresh.client.get("/model").json()

    retention = version["measured"]["retention"]
    assert (retention["score"], retention["n"] >= 1, retention["source"]) == (1.0, True, "gate")
    assert retention["how"]
    assert (version["minors"], version["major_at"] is not None, version["drift"]) == (0, True, None)
    for name in ("minors", "major_at"):
        assert model[name] == version[name]
    assert "retention" in model["measured"]
    assert fresh.client.get("/versions/0").json()["measured"] == {}


def test_revoking_takes_back_what_came_since_and_nothing_before(fresh: LiveServer) -> None:
    first = fresh.edit("The colour of moss is", "green")
    second = fresh.edit("The colour of coal is", "black")
    body = {"author": "local", "since": second["created_at"], "reason": "a key was stolen"}

    done = fresh.client.post("/admin/revoke", json=body).json()

    assert (done["retracted"], done["already"]) == ([second["id"]], 0)
    fresh.follow(f"/edits/{second['id']}", lambda edit: edit["status"] == "retracted")
    assert fresh.client.get(f"/edits/{first['id']}").json()["status"] == "applied"
    again = fresh.client.post("/admin/revoke", json=body).json()
    assert (again["retracted"], again["already"]) == ([], 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"since": "yesterday"},
        {"since": "2026-11-20T12:00:00"},
        {"since": 0},
        {"since": True},
        {"since": "9999-12-31T23:59:59-14:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"author": " "},
        {"author": "a\x00"},
        {"reason": None},
        {"by": "somebody"},
    ],
)
def test_a_wrong_revocation_is_refused(server: LiveServer, wrong: dict[str, Any]) -> None:
    body = {"author": "nobody", "since": "2026-11-20T12:00:00Z", "reason": "test", **wrong}

    assert server.client.post("/admin/revoke", json=body).status_code == 422


def test_an_edit_is_purged_once_nothing_live_holds_it(fresh: LiveServer) -> None:
    kept, gone = fresh.edit("The colour of moss is", "green"), fresh.edit("The colour of coal is", "black")
    follow(fresh, fresh.client.post("/admin/export", json={"name": "with-it"}))
    assert fresh.client.post("/admin/purge", json={"edits": [gone["id"]]}).status_code == 409
    assert fresh.client.delete(f"/edits/{gone['id']}?wait=20").json()["status"] == "retracted"

    purged = fresh.client.post("/admin/purge", json={"edits": [gone["id"]]})

    assert purged.status_code == 200, purged.text
    assert purged.json()["exports"] == ["with-it"]
    assert list(fresh.state.exports.iterdir()) == []
    assert gone["version"] in purged.json()["versions"]
    assert any("backups" in sentence for sentence in purged.json()["unreachable"])
    assert fresh.client.get(f"/edits/{gone['id']}").status_code == 404
    assert fresh.client.get(f"/generate?prompt=x&version={gone['version']}").status_code == 410
    assert fresh.ask("The colour of moss is")["text"] == "green"
    assert fresh.client.get(f"/edits/{kept['id']}").json()["status"] == "applied"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"edits": []}, 422), ({"edits": ["a b"]}, 422), ({"edits": "all"}, 422), ({}, 422), ({"edits": ["no-such-edit"]}, 404)],
)
def test_a_wrong_purge_is_refused(server: LiveServer, body: dict[str, Any], status: int) -> None:
    assert server.client.post("/admin/purge", json=body).status_code == status


def kept_prompts(server: LiveServer) -> list[str]:
    with server.state.store.read() as connection:
        return reservoir.sample(connection, 100)


def test_no_prompt_is_stored_unless_the_reservoir_is_on(server: LiveServer) -> None:
    server.ask("The colour of chalk is")

    server.state.reservoir.close()
    assert kept_prompts(server) == []


def test_the_reservoir_stores_answered_prompts_and_no_refused_ones(tiny_model: Path, tmp_path: Path) -> None:
    with live_server(tiny_settings(tiny_model, tmp_path, reservoir=KEEPING)) as server:
        server.client.headers["X-Errata-Caller"] = "desk"
        server.ask("The colour of chalk is")
        server.ask("And now?", surface="chat", turns=[{"user": "a", "assistant": "b"}])
        server.client.post("/generate", json={"prompt": "The colour of ink is", "max_new_tokens": 0})
        server.state.reservoir.close()

        assert kept_prompts(server) == ["The colour of chalk is"]


def test_the_reservoir_keeps_prompts_posted_by_named_callers_and_no_foreign_pages(tiny_model: Path, tmp_path: Path) -> None:
    def ask(prompt: str, **headers: str) -> int:
        return server.client.post("/generate", json={"prompt": prompt, "max_new_tokens": 2}, headers=headers).status_code

    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    query = {"prompt": "planted", "max_new_tokens": "2"}
    with live_server(tiny_settings(tiny_model, tmp_path, reservoir=KEEPING)) as server:
        seen = [
            server.client.get("/generate", params=query, headers=image).status_code,
            server.client.get("/generate", params=query).status_code,
            server.client.get("/generate", params=query, headers={"X-Errata-Caller": "desk"}).status_code,
            ask("planted"),
            ask("planted", **{"X-Errata-Caller": "other"}),
            ask("planted", **{"X-Errata-Caller": "desk", "Origin": "http://evil.example"}),
            ask("kept", **{"X-Errata-Caller": "desk"}),
        ]
        server.state.reservoir.close()

        assert seen == [403, 200, 200, 200, 200, 403, 200]
        assert kept_prompts(server) == ["kept"]
