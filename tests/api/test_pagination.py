"""Lists and batches are answered in short, each field has a limit, and a reserved word in a path is no id."""

import json
import tracemalloc
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from service.domain.edit import EditRequest, EditStatus, Probe
from service.store import edits, heads, list_rows
from service.store.ids import new_id
from service.store.list_rows import MAX_TEXT_CHARACTERS
from tests.api.live_server import LiveServer
from tests.api.routes.test_evaluations import RECORD

LARGE = 400_000  # characters of one field of an old row
TRIES = 5  # the least counts: other threads of the server allocate memory meanwhile
ROWS = 20
MOST_BYTES = ROWS * 10_000


@pytest.fixture(scope="module")
def crowded(server: LiveServer) -> LiveServer:
    """A server whose rows were written when fields had no bounds."""
    large = EditRequest(
        prompt="p" * LARGE,
        target="t" * LARGE,
        subject="s",
        ground_truth="\u00e9" * LARGE,
        rephrases=(Probe(prompt="r" * LARGE),),
        metadata={"m": "x" * LARGE},
        conflict_key=uuid.uuid4().hex,
    )
    with server.state.store.write() as connection:
        first = heads.take_seqs(connection, ROWS)
        rows = [(new_id(), first + number, EditStatus.DEFERRED, large) for number in range(ROWS)]
        edits.insert(connection, rows, author="local", now=datetime.now(UTC))
    return server


def read_json(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text[:500]
    return response.json()


def test_a_list_of_large_edits_is_short_and_says_that_texts_are_cut(crowded: LiveServer) -> None:
    response = crowded.client.get("/edits", params={"limit": 200})

    assert len(response.content) < MOST_BYTES
    items = read_json(response)["items"]
    large = [item for item in items if item["cut"]]
    assert len(large) == ROWS
    assert {(item["prompt"], item["target"], item["subject"]) for item in large} == {
        ("p" * MAX_TEXT_CHARACTERS, "t" * MAX_TEXT_CHARACTERS, "s")
    }
    assert not {"ground_truth", "metadata", "rephrases", "locality", "portability", "report"} & set(items[0])
    assert read_json(crowded.client.get(f"/edits/{large[0]['id']}"))["ground_truth"] == "\u00e9" * LARGE


def test_the_memory_for_a_list_does_not_grow_with_the_texts_of_its_rows(crowded: LiveServer) -> None:
    peaks = []
    for _ in range(TRIES):
        with crowded.state.store.read() as connection:
            tracemalloc.start()
            try:
                listed = list_rows.read_edits_page(connection, limit=200)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()

    assert sum(edit.is_cut for edit in listed) == ROWS
    assert min(peaks) < ROWS * LARGE / 4


def test_a_batch_is_answered_in_short(server: LiveServer) -> None:
    batch = [
        {"prompt": f"The colour of {uuid.uuid4().hex} is", "target": "red", "method": "locft", "metadata": {"m": "x" * 15_000}}
        for _ in range(5)
    ]

    posted = read_json(server.client.post("/edits/batch", json={"edits": batch}), 202)
    repeated = read_json(server.client.post("/edits/batch", json={"edits": batch}), 200)

    assert [item["prompt"] for item in posted["items"]] == [edit["prompt"] for edit in batch]
    assert [item["id"] for item in repeated["items"]] == [item["id"] for item in posted["items"]]
    assert len(json.dumps(repeated)) < 5_000
    for item in posted["items"]:
        server.client.delete(f"/edits/{item['id']}")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ground_truth": "x" * 480_000}, "ground_truth"),
        ({"ground_truth": "x " * 400}, "ground_truth"),
        ({"target": "x" * 480_000}, "target"),
        ({"rephrases": [{"prompt": "p", "answer": "x" * 480_000}]}, "rephrases[0].answer"),
        ({"locality": [{"prompt": "p", "answer": "x " * 400}]}, "locality[0].answer"),
        ({"subject": "x" * 501}, "subject"),
        ({"conflict_key": "x" * 501}, "conflict_key"),
        ({"metadata": {"x": "y" * 16_000}}, "metadata"),
    ],
)
def test_a_field_over_its_bound_is_refused_by_its_name(server: LiveServer, change: dict[str, Any], field: str) -> None:
    posted = server.client.post("/edits", json={"prompt": "The colour of tar is", "target": "red"} | change)
    measured = server.client.post("/eval", json={"edits": [{"prompt": "The colour of tar is", "target": "red"} | change]})

    assert read_json(posted, 422)["errors"][0]["field"] == field
    assert read_json(measured, 422)["errors"][0]["field"] == f"edits[0].{field}"


def test_aliases_replies_and_groups_of_records_have_bounds_too(server: LiveServer) -> None:
    def field_of(change: dict[str, Any]) -> str:
        return str(read_json(server.client.post("/eval", json={"edits": [RECORD | change]}), 422)["errors"][0]["field"])

    assert field_of({"aliases": [["x" * 17_000]]}) == "edits[0].aliases[0][0]"
    assert field_of({"wanted": ["x" * 17_000]}) == "edits[0].wanted[0]"
    assert field_of({"locality": [{"prompt": f"p {n}", "group": f"g {n}"} for n in range(101)]}) == "the body"


def test_identical_edits_together_stay_within_the_probe_limit(server: LiveServer) -> None:
    body = {"prompt": f"The colour of {uuid.uuid4().hex} is", "target": "red", "method": "locft"}

    def probes(first: int) -> dict[str, Any]:
        return body | {"locality": [f"probe {number}" for number in range(first, first + 40)]}

    created = read_json(server.client.post("/edits", json=probes(0)), 202)
    same = read_json(server.client.post("/edits", json=probes(24)))
    refused = read_json(server.client.post("/edits", json=probes(64)), 422)

    assert same["id"] == created["id"]
    assert len(same["locality"]) == 64
    assert refused["errors"][0]["field"] == "locality"
    assert len(read_json(server.client.get(f"/edits/{created['id']}"))["locality"]) == 64
    server.client.delete(f"/edits/{created['id']}")


def test_the_list_of_evaluations_has_scores_and_no_results(server: LiveServer) -> None:
    queued = read_json(server.client.post("/eval", json={"version": "base", "edits": [RECORD]}), 202)
    before = read_json(server.client.get("/eval", params={"limit": 1}))["items"][0]
    done = server.follow(f"/eval/{queued['id']}", lambda evaluation: evaluation["finished_at"] is not None)

    item = read_json(server.client.get("/eval", params={"limit": 1}))["items"][0]

    assert item["id"] == before["id"] == queued["id"]
    assert "result" not in item
    assert item["scores"] == {kind: done["result"]["greedy"][kind]["score"] for kind in item["scores"]}
    assert set(item["scores"]) == {"reliability", "generality", "locality", "portability"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/eval/compare", "GET"),
        ("PUT", "/eval/compare", "GET"),
        ("GET", "/edits/batch", "POST"),
        ("DELETE", "/edits/batch", "POST"),
        ("PUT", "/eval/an-id", "DELETE, GET"),
        ("PUT", "/edits", "GET, POST"),
        ("POST", "/eval/comparer", "DELETE, GET"),
    ],
)
def test_a_405_names_the_allowed_methods(server: LiveServer, method: str, path: str, allowed: str) -> None:
    response = server.client.request(method, path)

    assert response.status_code == 405
    assert response.headers["allow"] == allowed
