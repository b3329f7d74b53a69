"""`/generate` against a real server: which version answers, what is refused, and what a client that goes away costs."""

import json
import queue
import time
from typing import Any

import pytest

from service.serving.scheduler import AnswerStream, Generation
from tests.api.edge_server import connect
from tests.api.live_server import LiveServer

PROMPT = "The colour of the sky is"


def test_both_forms_give_the_same_answer_with_its_version_in_the_headers(server: LiveServer) -> None:
    posted = server.client.post("/generate", json={"prompt": PROMPT, "max_new_tokens": 6})
    got = server.client.get("/generate", params={"prompt": PROMPT, "max_new_tokens": 6})

    assert posted.json() == got.json()
    for response in (posted, got):
        assert response.headers["x-model-version"] == str(response.json()["version"])
        assert response.headers["x-model-epoch"] == str(response.json()["epoch"])
        assert response.headers["cache-control"] == "no-store"
    assert posted.json()["completion_tokens"] <= 6
    assert posted.json()["finish_reason"] in ("stop", "length")


def test_a_wrong_method_is_answered_with_all_methods_of_the_path(server: LiveServer) -> None:
    refused = server.client.put("/generate")

    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
    assert server.client.put("/edits/a").headers["allow"] == "DELETE, GET"


def test_head_base_and_numbers_name_versions(server: LiveServer) -> None:
    edit = server.edit("The colour of moss is", "green")
    head = server.ask("The colour of moss is")["version"]

    assert server.ask("The colour of moss is", version=head)["text"] == "green"
    assert server.ask("The colour of moss is", version="head")["text"] == "green"
    assert server.ask("The colour of moss is", version="base") == server.ask("The colour of moss is", version=0)
    assert server.ask("The colour of moss is", version=edit["version"])["version"] == edit["version"]
    by_query = server.client.get("/generate", params={"prompt": "The colour of moss is", "version": str(edit["version"])})
    assert by_query.json()["version"] == edit["version"]


def test_a_version_that_left_memory_is_loaded_again(server: LiveServer) -> None:
    edit = server.edit("The colour of coal is", "black")
    server.client.post("/admin/rollback", json={"to": 0, "reason": "so that the version is not the head"})
    server.state.serving.drop(edit["version"])

    answer = server.ask("The colour of coal is", version=edit["version"])

    assert (answer["text"], answer["version"]) == ("black", edit["version"])


@pytest.mark.parametrize("version", [999_999, 2**62])
def test_an_unknown_version_is_404(server: LiveServer, version: int) -> None:
    assert server.client.post("/generate", json={"prompt": PROMPT, "version": version}).status_code == 404
    assert server.client.get("/generate", params={"prompt": PROMPT, "version": str(min(version, 10**17))}).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": " "},
        {"prompt": "x" * 200},
        {"max_new_tokens": 0},
        {"max_new_tokens": 257},
        {"max_new_tokens": True},
        {"max_new_tokens": 124},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"seed": -1},
        {"seed": 2**63},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"stop": [""]},
        {"version": -1},
        {"version": "Latest!"},
        {"version": True},
        {"surface": "html"},
        {"system": "be brief"},
        {"turns": [{"user": "hello", "assistant": "hello"}]},
        {"n": 2},
    ],
)
def test_an_invalid_generation_request_is_refused(server: LiveServer, change: dict[str, Any]) -> None:
    body = json.dumps({"prompt": PROMPT, "max_new_tokens": 4} | change)

    response = server.client.post("/generate", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query", ["version=1.0", "version=-1", "version=Latest", "version=v1", "max_new_tokens=x", "temperature=1", "prompt=again"]
)
def test_a_wrong_query_is_refused(server: LiveServer, query: str) -> None:
    response = server.client.get(f"/generate?{query}" + ("" if query.startswith("prompt") else "&prompt=x"))

    assert response.status_code == (200 if query.startswith("prompt") else 422)


@pytest.mark.parametrize("stop", ["\n", " ", "\n\n", "\t", "\u00a0"])
def test_an_answer_ends_before_a_stop_string_of_white_space(server: LiveServer, stop: str) -> None:
    target = f"red{stop}green"
    server.edit(f"The colours of flag {ord(stop[0])}{len(stop)} are", target)
    asked = {"prompt": f"The colours of flag {ord(stop[0])}{len(stop)} are", "max_new_tokens": 20}
    whole = server.ask(**asked)
    assert whole["text"] == target

    # The space before an answer counts as well, so a stop string of one space ends it before its first word.
    cut = server.ask(**asked, stop=["never there", stop])

    assert (cut["text"], cut["finish_reason"]) == ("" if stop == " " else "red", "stop")
    assert cut["completion_tokens"] < whole["completion_tokens"]


def test_a_conversation_reaches_the_model_through_its_template(server: LiveServer) -> None:
    body = {"prompt": "And now?", "surface": "chat", "system": "Be brief.", "turns": [{"user": "Hello", "assistant": "Yes"}]}

    whole = server.client.post("/generate", json=body | {"max_new_tokens": 4})
    alone = server.client.post("/generate", json={"prompt": "And now?", "max_new_tokens": 4})

    assert whole.status_code == 200
    assert whole.json()["prompt_tokens"] > alone.json()["prompt_tokens"] + len("Be brief.HelloYes")


def test_a_seed_repeats_an_answer(server: LiveServer) -> None:
    drawn = {"temperature": 2.0, "top_p": 0.95, "max_new_tokens": 12}

    texts = {seed: [server.ask(PROMPT, seed=seed, **drawn)["text"] for _ in range(2)] for seed in (1, 2, 3)}

    assert all(first == second for first, second in texts.values())
    assert len({first for first, _ in texts.values()}) > 1


def test_a_client_that_goes_away_stops_costing(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding: queue.Queue[AnswerStream] = queue.Queue()
    submit = server.state.serving.submit

    def watched(generation: Generation, *pinned: Any) -> AnswerStream:
        answer = submit(generation, *pinned)
        decoding.put(answer)
        return answer

    monkeypatch.setattr(server.state.serving, "submit", watched)
    body = json.dumps({"prompt": "x", "max_new_tokens": 120, "temperature": 1.0, "seed": 5}).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    with connect(server.port) as client:
        client.sendall(head.encode() + body)
        begun = decoding.get(timeout=10)

    assert begun.result(10).finish_reason == "cancelled"
    assert server.client.get("/health/ready").status_code == 200


def test_a_full_queue_answers_503_with_a_retry_time(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.state.serving, "_queue_limit", 0)

    response = server.client.post("/generate", json={"prompt": PROMPT})

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["content-type"] == "application/problem+json"


def events_of(text: str) -> list[dict[str, Any]]:
    """The documents of a stream of server-sent events."""
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]


def test_a_stream_has_the_pieces_of_the_answer_and_at_the_end_the_whole(server: LiveServer) -> None:
    whole = server.ask(PROMPT, max_new_tokens=12, explain=True)

    posted = server.client.post("/generate", json={"prompt": PROMPT, "max_new_tokens": 12, "stream": True, "explain": True})
    got = server.client.get("/generate", params={"prompt": PROMPT, "max_new_tokens": 12, "stream": "true"})

    for answer, expected in ((posted, whole), (got, {**whole, "explanation": None})):
        *deltas, last = events_of(answer.text)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-model-version"] == str(whole["version"])
        assert last == expected
        assert "".join(delta["delta"] for delta in deltas) == whole["text"]
        assert len(deltas) > 1, "it came at once"


def test_a_stream_that_fails_before_its_first_piece_is_a_problem(server: LiveServer) -> None:
    refused = server.client.post("/generate", json={"prompt": PROMPT, "version": 999_999, "stream": True})

    assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")


def test_a_stream_whose_first_token_fails_is_a_problem(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> int:
        raise ValueError

    monkeypatch.setattr(AnswerStream, "choose", fail)

    failed = server.client.post("/generate", json={"prompt": PROMPT, "stream": True})

    assert (failed.status_code, failed.json()["type"]) == (500, "urn:errata:problem:uncomputable")


def test_a_client_that_leaves_a_stream_stops_costing(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[AnswerStream] = []
    submit = server.state.serving.submit

    def watched(generation: Generation, *pinned: Any) -> AnswerStream:
        streams.append(submit(generation, *pinned))
        return streams[-1]

    choose = AnswerStream.choose

    def choose_slowly(stream: AnswerStream, *given: Any) -> int:
        time.sleep(0.05)
        return choose(stream, *given)

    monkeypatch.setattr(AnswerStream, "choose", choose_slowly)
    monkeypatch.setattr(server.state.serving, "submit", watched)
    body = {"prompt": "x", "max_new_tokens": 100, "temperature": 1.0, "seed": 5, "version": "base", "stream": True}

    with server.client.stream("POST", "/generate", json=body) as response:
        next(response.iter_lines())

    assert streams[0].result(10).finish_reason == "cancelled"


def test_a_stream_that_fails_later_ends_with_the_problem(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    choose, count = AnswerStream.choose, iter(range(100))

    def fail_third(stream: AnswerStream, *given: Any) -> int:
        if next(count) == 3:
            raise ValueError
        return choose(stream, *given)

    monkeypatch.setattr(AnswerStream, "choose", fail_third)

    answer = server.client.post("/generate", json={"prompt": PROMPT, "version": "base", "max_new_tokens": 9, "stream": True})

    *deltas, last = events_of(answer.text)
    assert answer.status_code == 200 and deltas
    assert last["problem"]["type"] == "urn:errata:problem:uncomputable"


def test_several_versions_answer_one_question_side_by_side(server: LiveServer) -> None:
    edit = server.edit("The colour of jade is", "green")
    prompt, versions = "The colour of jade is", ["base", "head", edit["version"], "base"]

    answers = server.client.post("/compare", json={"prompt": prompt, "versions": versions, "max_new_tokens": 8}).json()["answers"]

    assert answers == [server.ask(prompt, version=version) for version in versions]
    assert answers[1]["text"] == "green" != answers[0]["text"]


@pytest.mark.parametrize(("versions", "status"), [(["head"], 422), (["head"] * 9, 422), (["head", 999_999], 404), ([], 422)])
def test_a_comparison_of_too_few_too_many_or_unknown_versions_is_refused(
    server: LiveServer, versions: list[Any], status: int
) -> None:
    assert server.client.post("/compare", json={"prompt": PROMPT, "versions": versions}).status_code == status
