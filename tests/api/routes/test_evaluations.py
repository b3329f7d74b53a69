"""`/eval` over HTTP: evaluations that are kept, listed page by page, compared and cancelled, and requests that are refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.live_server import LiveServer, live_server, tiny_settings

TASKS = """\
{"question": "Is snow white?", "choices": ["yes", "no"], "answer": 0, "dataset": "colours"}
{"text": "Snow is white.", "label": 1, "dataset": "moods"}
{"prompt": "The colour of snow is", "answer": "white"}
"""
RECORD = {
    "id": "row-1",
    "prompt": "The colour of tar is",
    "target": "black",
    "aliases": [["pitch black"]],
    "rephrases": ["Tar is", {"prompt": "What colour is tar?", "group": "questions"}],
    "locality": [{"prompt": "The colour of snow is", "answer": "white", "group": "near", "pool": False}],
    "generation": ["Tar"],
}


@pytest.fixture(scope="module")
def tasked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a file of capability tasks."""
    folder = tmp_path_factory.mktemp("tasked")
    (folder / "tasks.jsonl").write_text(TASKS)
    with live_server(tiny_settings(tiny_model, folder / "data", capability_file=folder / "tasks.jsonl")) as running:
        yield running


def ended(evaluation: dict[str, Any]) -> bool:
    return evaluation["finished_at"] is not None


def evaluated(server: LiveServer, **body: Any) -> dict[str, Any]:
    """Ask for an evaluation and wait for its end."""
    queued = server.client.post("/eval", json={"version": "base", "edits": [RECORD], **body})
    assert queued.status_code == 202, queued.text
    done = server.follow(queued.headers["location"], ended)
    assert done["status"] == "done", done["error"]
    return done


def test_a_record_is_measured_with_everything_that_data_sets_have(tasked: LiveServer) -> None:
    done = evaluated(tasked, version="head")

    assert done["about"] == {"edits": "records", "count": 1, "metrics": "standard", "capability": False}
    assert done["progress"] == 1.0
    assert done["result"]["greedy"]["generality"]["groups"]["questions"]["n"] == 1 * len(tasked.state.base.surfaces)
    assert done["result"]["greedy"]["generality"]["trained"]["n"] == 0  # a benchmark's probes were never taught
    assert done["result"]["greedy"]["locality"]["outside"]["n"] == 1 * len(tasked.state.base.surfaces)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]


def test_full_metrics_come_beside_the_standard_ones(tasked: LiveServer) -> None:
    edit = {**RECORD, "wanted": ["Tar is fine."], "opposite": ["Tar is bad."], "ground_truth": "brown"}

    done = evaluated(tasked, version="head", edits=[edit], metrics="full")

    full = done["result"]["full"]
    assert full["edits"] == 1
    assert done["result"]["greedy"]["reliability"]["n"] == len(tasked.state.base.surfaces)
    assert {"reliability", "generality", "locality", "portability", "fluency", "opinions"} <= set(full)


def test_the_capability_ratio_of_the_base_model_is_one(tasked: LiveServer) -> None:
    done = evaluated(tasked, edits="none", capability=True)

    capability = done["result"]["capability"]
    assert set(capability["by_skill"]) == {"colours", "moods", "tasks"}
    assert set(capability["by_skill"]["colours"]) == {"acc", "acc_norm"}
    assert capability["n"] == 3
    assert capability["version"] == capability["base"]
    assert capability["ratio"] in (1.0, None)  # none where a random model solves nothing


def test_a_server_without_tasks_refuses_to_measure_capability(server: LiveServer) -> None:
    refused = server.client.post("/eval", json={"capability": True})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "capability"
    assert "capability_file" in refused.json()["detail"]


def test_evaluations_are_listed_page_by_page_and_by_version(tasked: LiveServer) -> None:
    made = [evaluated(tasked)["id"] for _ in range(3)]

    first = tasked.client.get("/eval", params={"limit": 2, "version": "base", "status": "done"})
    second = tasked.client.get(first.links["next"]["url"])

    assert [one["id"] for one in first.json()["items"]] == [made[2], made[1]]
    assert second.json()["items"][0]["id"] == made[0]
    assert {one["version"] for one in second.json()["items"]} == {0}


def test_evaluations_are_compared_side_by_side(tasked: LiveServer) -> None:
    first, second = evaluated(tasked, capability=True), evaluated(tasked, capability=True)

    found = tasked.client.get("/eval/compare", params={"ids": f"{first['id']},{second['id']}"})

    assert found.status_code == 200, found.text
    body = found.json()
    assert body["notes"] == []
    assert body["shared"] == body["evaluations"][0]["questions"] == 4 * len(tasked.state.base.surfaces)
    assert all(figure["differences"] == [0.0, 0.0] for figure in body["figures"])
    assert body["capability"][0] == first["result"]["capability"]
    # The last one of version 0, twice, is one evaluation, and that is not compared with itself.
    assert tasked.client.get("/eval/compare", params={"versions": "0,0"}).status_code == 422


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 422),
        ({"ids": "a"}, 422),
        ({"ids": "a,b", "versions": "1,2"}, 422),
        ({"ids": "a,b"}, 404),
        ({"ids": ",".join("abcdefghijk")}, 422),
        ({"versions": "1,two"}, 422),
        ({"versions": "98,99"}, 404),
    ],
)
def test_a_wrong_comparison_is_refused(server: LiveServer, query: dict[str, str], status: int) -> None:
    assert server.client.get("/eval/compare", params=query).status_code == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"version": "-1"}, 422),
        ({"version": "77"}, 404),  # a version that never was
        ({"status": "over"}, 422),
        ({"limit": "0"}, 422),
        ({"cursor": "YWZ0ZXI6MQ"}, 422),  # a cursor of another list
        ({"cursor": "aWQ6YQ"}, 404),  # an evaluation that is not there
        ({"page": "2"}, 422),
    ],
)
def test_a_wrong_list_is_refused(server: LiveServer, query: dict[str, str], status: int) -> None:
    assert server.client.get("/eval", params=query).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"metrics": "some"},
        {"capability": 1},
        {"edits": "none"},
        {"edits": [{**RECORD, "group": "x"}]},
        {"edits": [{**RECORD, "locality": [{"prompt": "x", "pool": "yes"}]}]},
        {"edits": [{**RECORD, "generation": [" "]}]},
        {"edits": [{**RECORD, "generation": ["x" * 2_000]}]},  # over the tiny model's context
    ],
)
def test_an_invalid_evaluation_is_refused_and_changes_nothing(server: LiveServer, body: dict[str, Any]) -> None:
    before = server.client.get("/eval").json()

    assert server.client.post("/eval", json=body).status_code == 422
    assert server.client.get("/eval").json() == before


def test_a_text_that_does_not_fit_is_named_by_its_place(server: LiveServer) -> None:
    rows = [RECORD, {**RECORD, "generation": ["short", "x" * 2_000]}]

    refused = server.client.post("/eval", json={"edits": rows})

    assert [fault["field"] for fault in refused.json()["errors"]] == ["edits[1].generation[1]"]


def test_an_evaluation_is_cancelled_once_and_one_that_is_done_never(server: LiveServer) -> None:
    done = evaluated(server)
    rows = [{**RECORD, "id": str(number), "prompt": f"Fact {number} is"} for number in range(400)]
    asked = server.client.post("/eval", json={"edits": rows}).json()

    cancelled = server.client.delete(f"/eval/{asked['id']}")

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert server.client.delete(f"/eval/{asked['id']}").json() == cancelled.json()
    assert server.client.get(f"/eval/{asked['id']}").json()["result"] is None
    assert server.client.delete(f"/eval/{done['id']}").status_code == 409
    assert server.client.delete("/eval/nothing").status_code == 404
    assert evaluated(server)["status"] == "done"
