"""Clients that are slow, that send no HTTP, or that go away."""

import time
from collections.abc import Iterator

import pytest

from service.settings import Settings
from tests.api.edge_server import connect, edge_app, read_all, serve_edge

DEADLINE_S = 0.5
SETTINGS = Settings(limits={"receive_s": DEADLINE_S, "send_s": DEADLINE_S, "connections": 20})  # type: ignore[arg-type]
WHOLE = b"GET /edits HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve_edge(edge_app(SETTINGS), SETTINGS) as opened:
        yield opened


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"G",
        b"GET /edits HTTP/1.1\r\nHost: loc",
        b"POST /edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        WHOLE + b"GET /ed",
    ],
)
def test_a_client_that_does_not_finish_its_request_is_closed(port: int, begun: bytes) -> None:
    with connect(port) as client:
        began = time.monotonic()
        client.sendall(begun)
        read_all(client)

    assert DEADLINE_S * 0.9 < time.monotonic() - began < DEADLINE_S + 3


def test_more_bytes_do_not_buy_more_time(port: int) -> None:
    with connect(port, timeout_s=0.05) as client:
        began = time.monotonic()
        closed = False
        while not closed and time.monotonic() - began < 10:
            try:
                client.sendall(b"x")
                closed = client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True

    assert closed
    assert time.monotonic() - began < DEADLINE_S + 3


def test_a_client_that_does_not_read_its_answer_is_closed(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first = client.recv(1)
        until = time.monotonic() + DEADLINE_S + 1
        while time.monotonic() < until:  # the others are answered meanwhile
            with connect(port) as other:
                other.sendall(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                assert read_all(other).startswith(b"HTTP/1.1 200")
        rest = read_all(client)

    assert first == b"H"
    assert len(rest) < 50_000_000


def test_a_connection_is_kept_between_requests(port: int) -> None:
    with connect(port) as client:
        for _ in range(3):
            client.sendall(WHOLE)
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"this is no HTTP\r\n\r\n", b"400"),
        (b"GET /edits HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /edits?cursor=" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
        (b"GET /edits HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 500_000, b"431"),
    ],
)
def test_an_invalid_request_head_gets_a_problem(port: int, sent: bytes, status: bytes) -> None:
    with connect(port) as client:
        client.sendall(sent.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close"))
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"application/problem+json" in answer
    assert b"yyyy" not in answer


def test_half_a_request_of_a_disconnected_client_is_not_carried_out() -> None:
    app = edge_app(SETTINGS)
    body = b'{"prompt": "a", "target": "b"}'
    with serve_edge(app, SETTINGS) as port:
        head = b"POST /edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        with connect(port) as client:
            client.sendall(head + body)
        with connect(port) as client:
            client.sendall(WHOLE)
            client.recv(65536)

    assert app.state.reached == 1


@pytest.mark.parametrize("path", ["/edits", "/health/live"])
@pytest.mark.parametrize("body", [b"ZZ\r\nhello", b"5\r\nhello\r\nno chunk\r\n"])
def test_a_body_that_breaks_off_wrongly_is_refused_once_and_is_no_error_of_the_server(
    port: int, path: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()

    with connect(port) as client:
        client.sendall(head + body)
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 4") and answer.count(b"HTTP/1.1") == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_request_to_upgrade_is_answered_as_it_is_and_fills_no_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = b"\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"

    with connect(port) as client:
        client.sendall(WHOLE.replace(b"\r\n\r\n", upgrade))
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 200")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
