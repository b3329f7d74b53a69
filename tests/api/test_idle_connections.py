"""The limit of connections: which ones are closed for a new client, in which order, and which ones never."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import Mock

import pytest
from fastapi import FastAPI

from service.api.http_protocol import DeadlineProtocol
from service.api.idle_connections import ConnectionState, IdleConnections
from service.settings import Settings
from tests.api.edge_server import connect, edge_app, read_all, serve_edge

MOST = 20
SETTINGS = Settings(limits={"receive_s": 30, "send_s": 30, "connections": MOST, "concurrent_requests": 10})  # type: ignore[arg-type]
WHOLE = b"GET /edits HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n"
BLOCKING = b"GET /blocking HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"POST /edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"


class BlockingEdge:
    """An edge with a route that answers once it is released."""

    def __init__(self) -> None:
        self.app: FastAPI = edge_app(SETTINGS)
        self.released = threading.Event()
        self.arrived = threading.Semaphore(0)

        @self.app.get("/blocking")
        async def block() -> dict[str, str]:
            self.arrived.release()
            while not self.released.is_set():
                await asyncio.sleep(0.01)
            return {}

        @self.app.get("/health/live")
        async def live() -> dict[str, str]:
            return {}

    def open_busy(self, port: int, count: int, opened: ExitStack) -> list[socket.socket]:
        """Open `count` connections whose requests are being answered."""
        clients = [opened.enter_context(connect(port)) for _ in range(count)]
        for client in clients:
            client.sendall(BLOCKING)
            assert self.arrived.acquire(timeout=10)
        return clients


@contextmanager
def serve_blocking_edge() -> Iterator[tuple[BlockingEdge, int, ExitStack]]:
    edge = BlockingEdge()
    with serve_edge(edge.app, SETTINGS) as port, ExitStack() as opened:
        try:
            yield edge, port, opened
        finally:
            edge.released.set()


def answer(client: socket.socket, request: bytes) -> bytes:
    """The status of the answer to a request on a connection that stays open; nothing if it was closed."""
    received = b""
    try:
        client.sendall(request)
        while not received.endswith(b"}") and (chunk := client.recv(65536)):
            received += chunk
    except ConnectionError:
        pass
    return received[9:12]


def test_a_new_client_is_answered_when_idle_clients_have_every_connection() -> None:
    with serve_blocking_edge() as (_, port, opened):
        idle = [opened.enter_context(connect(port)) for _ in range(MOST)]
        assert [answer(client, WHOLE) for client in idle] == [b"200"] * MOST

        newcomers = [opened.enter_context(connect(port)) for _ in range(3)]

        assert [answer(client, WHOLE) for client in newcomers] == [b"200"] * 3
        assert [answer(client, WHOLE) for client in idle] == [b""] * 3 + [b"200"] * (MOST - 3)


def test_connections_that_never_sent_a_byte_are_closed_for_a_new_client() -> None:
    with serve_blocking_edge() as (_, port, opened):
        silent = [opened.enter_context(connect(port)) for _ in range(MOST)]

        newcomer = opened.enter_context(connect(port))

        assert answer(newcomer, WHOLE) == b"200"
        assert read_all(silent[0]) == b""


@pytest.mark.parametrize("begun", [b"GET /edits HTT", HALF])
def test_a_connection_with_a_partial_request_is_closed_after_the_idle_ones(begun: bytes) -> None:
    with serve_blocking_edge() as (edge, port, opened):
        busy = edge.open_busy(port, 1, opened)
        incomplete = [opened.enter_context(connect(port)) for _ in range(MOST - 2)]
        for client in incomplete:
            client.sendall(begun)
        idle = opened.enter_context(connect(port))
        assert answer(idle, WHOLE) == b"200"

        # The newcomers stay busy: a first newcomer that was answered would be idle, and closed for the second one.
        newcomers = edge.open_busy(port, 2, opened)

        assert read_all(idle) == read_all(incomplete[0]) == b""
        edge.released.set()
        assert [client.recv(65536)[:12] for client in (*busy, *newcomers)] == [b"HTTP/1.1 200"] * 3


def test_a_connection_that_is_being_answered_is_never_closed_for_a_new_one() -> None:
    tight = SETTINGS.model_copy(update={"limits": SETTINGS.limits.model_copy(update={"connections": 5})})
    edge = BlockingEdge()
    with serve_edge(edge.app, tight) as port, ExitStack() as opened:
        busy = edge.open_busy(port, 5, opened)

        assert read_all(opened.enter_context(connect(port))) == b""

        edge.released.set()
        assert [client.recv(65536)[:12] for client in busy] == [b"HTTP/1.1 200"] * 5


def test_a_health_check_is_answered_at_the_limit_of_concurrent_requests() -> None:
    with serve_blocking_edge() as (edge, port, opened):
        edge.open_busy(port, 10, opened)

        assert answer(opened.enter_context(connect(port)), WHOLE) == b"503"
        assert [answer(opened.enter_context(connect(port)), HEALTH) for _ in range(5)] == [b"200"] * 5


def test_an_unfinished_request_does_not_count_as_in_flight() -> None:
    with serve_blocking_edge() as (_, port, opened):
        for _ in range(MOST - 2):
            opened.enter_context(connect(port)).sendall(HALF)

        assert answer(opened.enter_context(connect(port)), WHOLE) == b"200"


def test_the_longest_idle_connection_is_closed_first_and_the_last_answered_one_last() -> None:
    idle = IdleConnections()
    first, second, third = Mock(), Mock(), Mock()
    for connection in (first, second, third):
        idle.set_state(connection, ConnectionState.IDLE)
    idle.set_state(second, ConnectionState.IDLE)  # nothing happened on it
    idle.set_state(first, None)
    idle.set_state(first, ConnectionState.IDLE)

    assert [idle.close_longest_idle() for _ in range(4)] == [second, third, first, None]
    assert second.transport.abort.called


def test_two_servers_of_one_process_do_not_close_each_other_s_connections() -> None:
    first, second = (DeadlineProtocol.with_limits(SETTINGS.limits) for _ in range(2))

    assert first.idle_connections is not second.idle_connections
