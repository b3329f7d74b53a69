"""Many clients that stay connected: with waiting calls, and with idle, silent or half-sent connections."""

import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.health_probe import read_status
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools

WAITING = 1_100
CONNECTIONS = 2_000
NEWCOMERS = 100
MAY_WAIT = 128  # from one address
STAY_S = 50.0  # less than they would wait
FILES = 8_192
HEAD = "{method} HTTP/1.1\r\nHost: localhost\r\n"
JSON = "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
IDLE = HEAD.format(method="GET /health/live").encode() + b"\r\n"
HALF = HEAD.format(method="GET /edits").encode()


def waiting_edits(tools: AttackTools) -> AttackResult:
    """1,100 posts at once with a wait of a minute. All but a bounded number must be answered as soon as they are accepted, and
    health checks must be answered all the time.
    """
    with _many_files(), tools.server() as server, start_raw(server) as client, ExitStack() as stack:
        port = client.base_url.port or 0
        ready_statuses, model_statuses = Counter[int](), Counter[int]()
        with tools.probe_health(_url(port)):
            started_at = time.monotonic()
            connections = [stack.enter_context(_open_connection(port, _edit(number))) for number in range(WAITING)]
            statuses = dict.fromkeys(connections, "")
            while _count_waiting(statuses) > MAY_WAIT and time.monotonic() < started_at + STAY_S:
                ready_statuses[read_status(_url(port), "/health/ready")] += 1
                model_statuses[read_status(_url(port), "/model")] += 1
                statuses |= {connection: _read_status_so_far(connection) for connection, status in statuses.items() if not status}
                time.sleep(0.2)
            seconds = time.monotonic() - started_at
            last_status = read_status(_url(port), "/model")
        counts = Counter(status or "waiting" for status in statuses.values())
        is_held = (
            _count_waiting(statuses) <= MAY_WAIT
            and set(ready_statuses) == {200}
            and last_status == 200
            and not tools.health_probes[-1].failures
        )
        return AttackResult(
            is_held,
            f"{WAITING:,} edits with wait=60, after {seconds:.0f} s: {dict(sorted(counts.items()))};"
            f" /health/ready: {dict(ready_statuses)};"
            f" /model meanwhile: {dict(model_statuses)}, then {last_status}",
        )


def idle_connections(tools: AttackTools) -> AttackResult:
    """2,000 connections that stay open after one answer. A new client must be answered at once."""
    return _with_connections(tools, "idle", IDLE)


def silent_connections(tools: AttackTools) -> AttackResult:
    """2,000 connections that never send a byte."""
    return _with_connections(tools, "silent", b"")


def half_sent_requests(tools: AttackTools) -> AttackResult:
    """2,000 connections that send half a request."""
    return _with_connections(tools, "half-sent", HALF)


def half_sent_bodies(tools: AttackTools) -> AttackResult:
    """2,000 connections that send the head of a request and one byte of its body."""
    return _with_connections(tools, "with half a body", _post("/edits", 50) + b"{")


def _with_connections(tools: AttackTools, label: str, request: bytes) -> AttackResult:
    with _many_files(), tools.server() as server, start_raw(server) as client, ExitStack() as stack:
        port = client.base_url.port or 0
        for _ in range(CONNECTIONS):
            stack.enter_context(_open_connection(port, request))
        time.sleep(1.0)  # all of them are accepted
        with tools.probe_health(_url(port)):
            started_at = time.monotonic()
            statuses = Counter(read_status(_url(port), "/edits") for _ in range(NEWCOMERS))
            seconds = time.monotonic() - started_at
        is_held = statuses == {200: NEWCOMERS} and not tools.health_probes[-1].failures
        return AttackResult(
            is_held, f"{CONNECTIONS:,} connections {label}; then {NEWCOMERS} new clients: {dict(statuses)} in {seconds:.1f} s"
        )


@contextmanager
def _open_connection(port: int, request: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        yield connection


def _post(path: str, length: int) -> bytes:
    return (HEAD.format(method=f"POST {path}") + JSON.format(length=length)).encode()


def _edit(number: int) -> bytes:
    body = f'{{"prompt": "The capital of country {number} is", "target": "Sydney"}}'.encode()
    return _post("/edits?wait=60", len(body)) + body


def _count_waiting(statuses: Mapping[socket.socket, str]) -> int:
    return sum(not status for status in statuses.values())


def _read_status_so_far(client: socket.socket) -> str:
    """The status of the answer; empty if there is none yet."""
    client.setblocking(False)
    try:
        return client.recv(65_536)[9:12].decode("ascii") or "closed"
    except BlockingIOError:
        return ""
    except ConnectionError:
        return "closed"


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def _many_files() -> Iterator[None]:
    """Raise the limit of open files for many sockets, here and in the servers that start in this block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(FILES, limits[1])), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


ATTACKS = (
    Attack("waiting edits", waiting_edits),
    Attack("idle connections", idle_connections),
    Attack("silent connections", silent_connections),
    Attack("half-sent requests", half_sent_requests),
    Attack("connections with half a body", half_sent_bodies),
)
