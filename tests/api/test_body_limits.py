"""Limits on the bytes of requests: memory, pieces, time on the event loop. Odd but complete requests are answered."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from service.api.body_limits import SMALL_BYTES, BodyMemory
from service.api.chunk_limit import FREE_PIECES
from service.api.problems import Problem
from service.api.schemas import MOST_MEMBERS
from service.api.schemas.edits import BatchIn
from service.api.strict_json import MOST_FAULTS, MOST_VALUES, parse, read
from service.settings import Settings
from tests.api.edge_server import connect, edge_app, read_all, serve_edge

ROOM = 1_000_000
SETTINGS = Settings(limits={"bodies_bytes": ROOM, "batch_body_bytes": ROOM, "receive_s": 5})  # type: ignore[arg-type]
EDIT = {"prompt": "The capital of Australia is", "target": "Sydney"}
JSON = b"Host: localhost\r\nContent-Type: application/json\r\n"
LAST = JSON + b"Connection: close\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve_edge(edge_app(SETTINGS), SETTINGS) as opened:
        yield opened


def post(path: bytes, body: bytes, length: int | None = None, head: bytes = LAST) -> bytes:
    """The bytes of a request, which may promise more than it holds."""
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path, head, len(body) if length is None else length) + body


def answer_to(port: int, sent: bytes) -> bytes:
    with connect(port) as client:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read everything
            client.sendall(sent)
        return read_all(client)


def wait_for_status(port: int, status: bytes, sent: bytes) -> bytes:
    """Repeat a request until its answer has this status: the server handles other connections a moment later."""
    for _ in range(200):
        answer = answer_to(port, sent)
        if status in answer.split(b"\r\n")[0]:
            return answer
        time.sleep(0.02)
    raise AssertionError(answer)


def refusal(body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        read(body, BatchIn)
    return caught.value


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" + b"[]," * MOST_VALUES + b"0]", 422),
        (b"[" + b"0," * MOST_VALUES + b"0]", 422),
        (b'"",' * (2 * MOST_VALUES + 1), 422),
        (b"[" + b"{}," * MOST_VALUES + b"0]", 422),
        (b"1" * 1_000_000, 422),
        (b"0." + b"1" * 1_000_000, 422),
        (b'"' + b'\\"' * 500_000, 400),
        (b" " * 1_000_000, 400),
    ],
)
def test_a_large_body_of_tiny_values_or_of_one_huge_value_is_refused(body: bytes, status: int) -> None:
    assert refusal(body).kind.status == status


def test_too_many_faults_are_reported_as_one_fault() -> None:
    edit = {"rephrases": [{f"{number:x}": 0 for number in range(MOST_MEMBERS)} for _ in range(10)]}

    problem = refusal(json.dumps({"edits": [edit] * (1 + MOST_FAULTS // (10 * MOST_MEMBERS))}).encode())

    assert problem.detail == f"The body has more than {MOST_FAULTS} faults."


def test_an_object_with_more_fields_than_any_request_has_is_refused_as_a_whole() -> None:
    problem = refusal(json.dumps({"edits": [EDIT, {f"{number:x}": 0 for number in range(MOST_MEMBERS + 1)}]}).encode())

    assert [fault.field for fault in problem.errors] == ["edits[1]"]
    assert problem.detail == "edits[1] must have at most 64 fields"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "x", "b": [1, 2.5, -3e2, null, true, false, ""], "a": "\\ud83d\\ude00\\n\\"\\\\"}', None),
        ('["\\\\", "\\"[[[", {"\\\\\\"{": [[], {}]}]', None),
    ],
)
def test_a_large_body_is_parsed_to_the_same_value_as_a_small_one(text: str, value: Any) -> None:
    padded = text.encode() + b" " * (SMALL_BYTES + 1)

    assert parse(padded) == parse(text.encode()) == json.loads(text)


def test_bodies_in_flight_share_one_memory_limit_and_release_it() -> None:
    bodies = BodyMemory(SETTINGS.limits)
    with bodies.reservation() as first, bodies.reservation() as second:
        first.grow(ROOM)
        second.grow(2 * SMALL_BYTES)
        with pytest.raises(Problem) as caught:
            second.grow(ROOM)
        bodies.check(SMALL_BYTES)
        assert caught.value.kind.status == 503
        assert caught.value.headers == {"Retry-After": "1", "Connection": "close"}

    with bodies.reservation() as third:
        third.grow(ROOM + SMALL_BYTES)
        with pytest.raises(Problem):
            bodies.check(SMALL_BYTES + 1)


def test_unfinished_bodies_fill_their_memory_limit_while_small_requests_pass(port: int) -> None:
    half = post(b"/edits/batch", b" " * 700_000, 900_000, JSON)
    large = post(b"/edits/batch", b" " * (ROOM // 2))
    for attempt in range(50):
        with ExitStack() as opened:
            for client in [opened.enter_context(connect(port)) for _ in range(4)]:
                with suppress(BrokenPipeError, ConnectionResetError):
                    client.sendall(half)
            time.sleep(0.02 * attempt)  # the server reads them first; else the large body would get their memory
            refused = answer_to(port, large)
            small = answer_to(port, post(b"/edits", json.dumps(EDIT).encode()))
        if b" 503 " in refused.split(b"\r\n")[0]:
            break

    assert b" 503 " in refused.split(b"\r\n")[0]
    assert b"retry-after: 1" in refused.lower()
    assert b"connection: close" in refused.lower()
    assert b" 200 " in small.split(b"\r\n")[0]
    whole = json.dumps({"edits": [EDIT]}).encode() + b" " * (ROOM // 2)
    wait_for_status(port, b" 200 ", post(b"/edits/batch", whole))  # their memory is released when they are closed


def test_a_body_in_thousands_of_pieces_is_refused_and_the_connection_closed(port: int) -> None:
    head = b"POST /edits HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = answer_to(port, head + b"1\r\n \r\n" * 20 * FREE_PIECES)

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"The body came in too many small pieces." in answer


def test_a_body_in_a_few_hundred_pieces_is_accepted(port: int) -> None:
    body = json.dumps(EDIT).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body.ljust(FREE_PIECES - 10))
    answer = answer_to(port, b"POST /edits HTTP/1.1\r\n" + LAST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert b" 200 " in answer.split(b"\r\n")[0]


def test_a_large_body_is_parsed_and_validated_in_a_thread(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    thread_ids: list[int] = []

    def read_and_record(body: bytes, model: Any) -> Any:
        thread_ids.append(threading.get_ident())
        return read(body, model)

    monkeypatch.setattr("service.api.strict_json.read", read_and_record)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        small = client.post("/edits/batch", json={"edits": [EDIT]})
        large = client.post("/edits/batch", json={"edits": [EDIT] * 300})
        blank = client.post("/edits/batch", json={"edits": [EDIT | {"prompt": " \u200b" * 10_000}]})

    assert (small.status_code, large.status_code, blank.status_code) == (200, 200, 422)
    assert blank.json()["errors"] == [{"field": "edits[0].prompt", "detail": "edits[0].prompt must not be blank"}]
    assert thread_ids[1] != thread_ids[0]
    assert len(thread_ids) == 3


def test_a_client_that_closes_its_sending_side_after_a_request_is_answered(port: int) -> None:
    with connect(port) as client:
        client.sendall(post(b"/edits", json.dumps(EDIT).encode(), head=JSON))
        client.shutdown(1)
        answer = read_all(client)  # to the end: the connection is not kept

    final = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").removeprefix(b"HTTP/1.1 100 \r\n\r\n")
    assert final.startswith(b"HTTP/1.1 200")
    assert final.endswith(b"}")


@pytest.mark.parametrize(
    "target",
    [
        b"http://localhost/edits",
        b"http://[::1/edits",
        b"*",
        b"localhost:80",
        b"edits",
        b"?",
        b"/%zz",
        b"/%",
        b"/%ff",
        b"/edits/%f",
    ],
)
def test_a_request_target_that_is_no_path_gets_a_problem_and_no_traceback(port: int, target: bytes) -> None:
    with capture_logs() as lines:
        answer = answer_to(port, b"GET " + target + b" HTTP/1.1\r\n" + LAST + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer
    assert [line for line in lines if line["log_level"] == "error"] == []


def test_invalid_http_after_an_answer_closes_the_connection_without_a_traceback(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(port) as client:
        client.sendall(head)
        first = client.recv(65_536)
        client.sendall(b"no chunk\r\n")
        read_all(client)

    assert first.startswith(b"HTTP/1.1 415")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
