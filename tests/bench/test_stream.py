"""A stream of edits: what the client posts and counts, what becomes of it in tables, and one stream through a real server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.bench.contenders import CONTENDERS, LABELS, build_environment
from service.bench.counting_client import CountingClient
from service.bench.records import load_records, open_rephrases
from service.bench.results import percentile
from service.bench.stream import PostedEdit, Stream, build_body, compute_latencies, score_first_answers, summarise_seconds
from service.bench.stream_comparison import PACED, load_rows, write_comparison
from service.bench.stream_tables import build_rows, find_shortfalls
from service.client.errata_client import ErrataClient
from service.domain.errors import Refused
from service.evaluation.merging import merge_results
from service.evaluation.records import EvalProbe, Record
from service.settings import load_settings, variable_names
from tests.api.live_server import live_server, tiny_settings
from tests.builders import save_model

VIENNA = Record(
    id="1",
    prompt="Vienna lies in",
    target="Graz",
    rephrases=(EvalProbe(prompt="Where is Vienna? In"), EvalProbe(prompt="Vienna is a part of")),
    locality=(EvalProbe(prompt="Paris lies in", pool=True), EvalProbe(prompt="Rome lies in", pool=False)),
)
ROME = Record(id="2", prompt="The river of Rome is the", target="Danube")


def figure(score: float | None, n: int = 4) -> dict[str, Any]:
    return {"score": score, "n": n}


def mark(edits: int, *, retention: float = 1.0, outside: float = 0.9, failed: int = 0) -> dict[str, Any]:
    """A mark as a stream gives it."""
    locality = {**figure(0.95), "inside": figure(1.0), "outside": figure(outside)}
    scores = {"reliability": figure(retention), "generality": {**figure(0.8), "untrained": figure(0.7)}, "locality": locality}
    return {
        "edits": edits,
        "version": edits,
        "window": 5,
        "live": edits,
        "retrains": {"minor": 1, "major": 0, "failed": 0},
        "after_all": {"greedy": scores, "tokens": scores, "capability": {"ratio": 0.99}},
        "right_after": {kind: figure(1.0) for kind in ("reliability", "generality", "locality")},
        "latency_s": summarise_seconds([0.5]),
        "latency_since_last_mark_s": summarise_seconds([0.5, 0.7, 0.6]),
        "seconds": 10.0,
        "failed_requests": failed,
    }


def client_answering(answer: Callable[[httpx.Request], httpx.Response]) -> CountingClient:
    return CountingClient(ErrataClient("http://server", transport=httpx.MockTransport(answer), sleep=lambda _: None))


@pytest.mark.parametrize("contender", CONTENDERS)
def test_the_settings_of_every_contender_are_valid(contender: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = build_environment(contender, every=25)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    load_settings()

    assert set(environment) <= set(variable_names())
    assert contender in LABELS


@pytest.mark.parametrize(("every", "kept"), [(25, 100), (200, 800)])
def test_versions_are_kept_until_the_mark_that_evaluates_them(every: int, kept: int) -> None:
    assert build_environment("default", every=every)["ERRATA_RETENTION__KEEP_LAST"] == str(kept)


def test_no_posted_probe_is_open_to_training() -> None:
    body = build_body(VIENNA)

    assert [probe["train"] for kind in ("rephrases", "locality", "portability") for probe in body[kind]] == [False] * 4


def test_only_the_contenders_number_of_rephrases_is_open_to_training() -> None:
    body = build_body(open_rephrases(VIENNA, 1))

    assert [probe["train"] for probe in body["rephrases"]] == [True, False]
    assert [probe["train"] for probe in body["locality"]] == [False, False]


def test_a_failed_request_is_counted_and_reported_and_the_stream_continues() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/model":
            raise httpx.ConnectError("no")
        return httpx.Response(503, json={"detail": "too many edits wait"})

    asking = client_answering(answer)

    assert asking.attempt(lambda errata: errata.get_model()) is None
    assert asking.attempt(lambda errata: errata.post_edit({"prompt": "a", "target": "b"})) is None
    assert asking.requests == 2
    assert asking.failures == ["GET /model: ConnectError", "POST /edits: 503 too many edits wait"]


def test_all_pages_of_a_list_are_read() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "cursor" in request.url.params:
            return httpx.Response(200, json={"items": [{"id": "b"}], "next": None})
        return httpx.Response(200, json={"items": [{"id": "a"}], "next": "on"})

    assert [item["id"] for item in client_answering(answer).list_items(lambda errata: errata.list_edits())] == ["a", "b"]


def test_results_of_parts_are_merged_by_their_n() -> None:
    parts = [
        {"edits": 3, "greedy": {"locality": {**figure(1.0, 3), "outside": figure(1.0, 1)}}},
        {"edits": 1, "greedy": {"locality": {**figure(0.0, 1), "outside": figure(None, 0)}}},
    ]

    assert merge_results(parts) == {"edits": 4, "greedy": {"locality": {**figure(0.75, 4), "outside": figure(1.0, 1)}}}


def test_scores_right_after_the_edit_are_averaged_over_questions() -> None:
    def result(score: float, n: int) -> dict[str, Any]:
        return {"greedy": {"generality": {**figure(1.0, n + 1), "untrained": figure(score, n)}}}

    mark = score_first_answers([result(1.0, 3), result(0.0, 1)])

    assert mark["generality"] == {"score": 0.75, "n": 4}
    assert mark["reliability"] == {"score": None, "n": 0}
    assert score_first_answers([])["generality"] == {"score": None, "n": 0}


def test_every_edit_is_evaluated_on_the_version_that_first_contained_it() -> None:
    requests: list[tuple[int, list[str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/eval":
            body = json.loads(request.content)
            requests.append((body["version"], [edit["prompt"] for edit in body["edits"]]))
            return httpx.Response(202, json={"id": "a", "status": "queued", "finished_at": None})
        return httpx.Response(200, json={"id": "a", "status": "done", "finished_at": "now", "result": {"edits": 1}})

    stream = Stream(client_answering(answer), [VIENNA, ROME], every=2)
    stream.posted = [PostedEdit("a", VIENNA, 1.0, 0.0), PostedEdit("b", ROME, 1.0, 0.0), PostedEdit("c", VIENNA, None, 0.0)]
    edits: dict[str, dict[str, Any]] = {"a": {"version": 3}, "b": {"version": 4}, "c": {"version": None}}
    stream._evaluate_first_answers(edits)
    stream._evaluate_first_answers(edits)

    assert requests == [(3, [VIENNA.prompt]), (4, [ROME.prompt])]


def test_latencies_are_those_of_the_posted_edits() -> None:
    moments = {"created_at": "2026-01-01T00:00:00Z", "applied_at": "2026-01-01T00:00:30Z"}
    posted = [
        PostedEdit("fast", VIENNA, 10.0, 0.0),
        PostedEdit("deferred", ROME, None, 2.0),
        PostedEdit("waiting", ROME, None, 0.0),
    ]

    seconds = compute_latencies(posted, {"older": moments, "fast": moments, "deferred": moments, "waiting": {"applied_at": None}})

    assert seconds == [10.0, 32.0]


class StreamClock:
    """Time that passes only where somebody sleeps, and in every POST of an edit."""

    def __init__(self, *posts: float) -> None:
        self.now, self._posts, self.begun = 0.0, list(posts), list[float]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/edits":
            self.begun.append(self.now)
            self.now += self._posts.pop(0)
        return httpx.Response(200, json={"id": str(len(self.begun)), "status": "applied"})


@pytest.mark.parametrize(
    ("pace_s", "starts", "late", "seconds"),
    [
        (5.0, [0.0, 5.0, 17.0, 18.0], 2, [1.0, 12.0, 8.0, 4.0]),  # the third is due at 10 and the fourth at 15
        (0.0, [0.0, 1.0, 13.0, 14.0], 0, [1.0, 12.0, 1.0, 1.0]),
    ],
)
def test_a_late_paced_post_does_not_shift_the_next_one(
    pace_s: float, starts: list[float], late: int, seconds: list[float]
) -> None:
    clock = StreamClock(1.0, 12.0, 1.0, 1.0)
    stream = Stream(
        client_answering(clock.answer), [VIENNA] * 4, every=4, pace_s=pace_s, clock=lambda: clock.now, sleep=clock.sleep
    )

    stream._post_all(stream.records)

    assert clock.begun == starts
    assert stream.late_count == late
    assert compute_latencies(stream.posted, {}) == seconds


def test_an_unreadable_head_leaves_the_mark_empty() -> None:
    requests: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.path)
        if request.url.path == "/versions/head":
            return httpx.Response(503, json={"detail": "the database is away"})
        return httpx.Response(200, json={"items": [], "next": None})

    mark = Stream(client_answering(answer), [VIENNA], every=1)._mark(1, [])

    assert (mark["version"], mark["after_all"], mark["failed_requests"]) == (None, None, 1)
    assert "/eval" not in requests
    assert build_rows("default", [mark])[0]["retention"] is None


def test_edits_accepted_anyway_do_not_count_as_live_and_are_counted_apart() -> None:
    edits = [
        {"id": str(number), "status": status, "version": None, "accepted_anyway": forced}
        for number, (status, forced) in enumerate(
            [("applied", False), ("consolidated", True), ("applied", True), ("deferred", False)]
        )
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/versions/head":
            return httpx.Response(503, json={"detail": "the database is away"})
        is_list = request.url.path == "/edits" and "status" not in request.url.params
        return httpx.Response(200, json={"items": edits if is_list else [], "next": None})

    mark = Stream(client_answering(answer), [VIENNA], every=1)._mark(1, [])

    assert (mark["live"], mark["accepted_anyway"]) == (1, 2)


@pytest.mark.parametrize(("n", "median", "most"), [(2, 1, 2), (6, 3, 6), (10, 5, 10), (20, 10, 19), (100, 50, 95)])
def test_a_percentile_is_the_smallest_value_that_a_share_does_not_exceed(n: int, median: int, most: int) -> None:
    values = [float(value) for value in range(1, n + 1)]

    assert (percentile(values, 0.5), percentile(values, 0.95)) == (median, most)


def test_each_shortfall_of_the_default_is_reported_with_its_figure() -> None:
    rows = build_rows("default", [mark(25), mark(50, retention=0.98, outside=0.8, failed=2)])

    assert find_shortfalls(rows) == [
        "retention is 0.980 after 50 edits, under 0.99",
        "locality outside is 0.800 after 50 edits, under 0.85",
        "2 requests failed",
    ]


def test_a_failed_evaluation_leaves_its_row_empty() -> None:
    [row] = build_rows("default", [mark(25) | {"after_all": None}])

    assert row["retention"] is None
    assert row["window"] == 5


def test_streams_of_several_runs_are_one_table_and_one_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for contender in ("reft", "default"):
        (tmp_path / f"stream_{contender}.json").write_text(json.dumps({"figures": {"marks": [mark(25), mark(50)]}}))

    write_comparison(tmp_path, lambda _: None)

    assert [(row["contender"], row["edits"]) for row in load_rows(tmp_path)] == [
        ("default", 25),
        ("default", 50),
        ("reft", 25),
        ("reft", 50),
    ]
    assert len((tmp_path / "stream.csv").read_text().splitlines()) == 5
    assert load_rows(tmp_path, PACED) == []
    assert "service default" in (tmp_path / "stream.svg").read_text()


def test_without_matplotlib_tables_are_written_and_a_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bench.plots.find_spec", lambda _: None)
    (tmp_path / "stream_default.json").write_text(json.dumps({"figures": {"marks": [mark(25)]}}))
    messages: list[str] = []

    write_comparison(tmp_path, messages.append)

    assert (tmp_path / "stream.csv").exists()
    assert not (tmp_path / "stream.svg").exists()
    assert "matplotlib is not installed" in messages[0]


def test_more_edits_than_exist_are_refused() -> None:
    with pytest.raises(Refused, match="there are only"):
        load_records(None, n=100_000)


def test_a_stream_through_a_real_server_measures_its_head_at_every_mark(tmp_path: Path) -> None:
    settings = tiny_settings(save_model(tmp_path / "tiny", "llama"), tmp_path / "data")
    with live_server(settings) as server:
        stream = Stream(
            CountingClient(ErrataClient(f"http://127.0.0.1:{server.port}")), [VIENNA, ROME], every=1, capability=False
        )
        marks = list(stream.run())
        surfaces = len(server.state.base.surfaces)

    rows = build_rows("default", marks)
    assert [(row["edits"], row["live"], row["window"], row["failed_requests"]) for row in rows] == [(1, 1, 1, 0), (2, 2, 2, 0)]
    assert [row["retention"] for row in rows] == [1.0, 1.0]
    assert all(row["locality_inside"] is not None and row["locality_outside"] is not None for row in rows)
    assert all(row["latency_p50_s"] > 0 and row["latency_n"] == 1 for row in rows)
    assert [mark["right_after"]["reliability"]["n"] for mark in marks] == [surfaces, 2 * surfaces]
