"""Clients that come in crowds and stay: with calls that wait, with connections that are idle, silent or half-sent."""

import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks.hostile.ground import Attack, AttackResult, AttackTools, read_status

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


def waiting_edits(ground: AttackTools) -> AttackResult:
    """1,100 posts at once that want to wait for a minute: all but a bounded number are answered as soon as they are accepted,
    and the health checks are answered all the while.
    """
    with _many_files(), ground.server() as server, server.start() as client, ExitStack() as opened:
        port = client.base_url.port or 0
        ready, model = Counter[int](), Counter[int]()
        with ground.pulse(_url(port)):
            began = time.monotonic()
            crowd = [opened.enter_context(_sending(port, _edit(number))) for number in range(WAITING)]
            statuses = dict.fromkeys(crowd, "")
            while _waiting(statuses) > MAY_WAIT and time.monotonic() < began + STAY_S:
                ready[read_status(_url(port), "/health/ready")] += 1
                model[read_status(_url(port), "/model")] += 1
                statuses |= {one: _answer_so_far(one) for one, status in statuses.items() if not status}
                time.sleep(0.2)
            took = time.monotonic() - began
            last = read_status(_url(port), "/model")
        told = Counter(status or "waiting" for status in statuses.values())
        held = _waiting(statuses) <= MAY_WAIT and set(ready) == {200} and last == 200 and not ground.pulses[-1].failures
        return AttackResult(
            held,
            f"{WAITING:,} edits with wait=60, after {took:.0f} s: {dict(sorted(told.items()))}; /health/ready: {dict(ready)};"
            f" /model meanwhile: {dict(model)}, then {last}",
        )


def idle_connections(ground: AttackTools) -> AttackResult:
    """2,000 connections that were answered once and stay; a new client is answered at once."""
    return _crowded(ground, "idle", IDLE)


def silent_connections(ground: AttackTools) -> AttackResult:
    """2,000 connections that never send a byte."""
    return _crowded(ground, "silent", b"")


def half_sent_requests(ground: AttackTools) -> AttackResult:
    """2,000 connections that send half a request."""
    return _crowded(ground, "half-sent", HALF)


def half_sent_bodies(ground: AttackTools) -> AttackResult:
    """2,000 connections that send the head of a request, and a byte of its body."""
    return _crowded(ground, "with half a body", _post("/edits", 50) + b"{")


def _crowded(ground: AttackTools, what: str, sent: bytes) -> AttackResult:
    with _many_files(), ground.server() as server, server.start() as client, ExitStack() as opened:
        port = client.base_url.port or 0
        for _ in range(CONNECTIONS):
            opened.enter_context(_sending(port, sent))
        time.sleep(1.0)  # all of them are accepted
        with ground.pulse(_url(port)):
            began = time.monotonic()
            seen = Counter(read_status(_url(port), "/edits") for _ in range(NEWCOMERS))
            took = time.monotonic() - began
        held = seen == {200: NEWCOMERS} and not ground.pulses[-1].failures
        return AttackResult(
            held, f"{CONNECTIONS:,} connections {what}; then {NEWCOMERS} new clients: {dict(seen)} in {took:.1f} s"
        )


@contextmanager
def _sending(port: int, request: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as made:
        made.sendall(request)
        yield made


def _post(path: str, length: int) -> bytes:
    return (HEAD.format(method=f"POST {path}") + JSON.format(length=length)).encode()


def _edit(number: int) -> bytes:
    body = f'{{"prompt": "The capital of country {number} is", "target": "Sydney"}}'.encode()
    return _post("/edits?wait=60", len(body)) + body


def _waiting(statuses: Mapping[socket.socket, str]) -> int:
    return sum(not status for status in statuses.values())


def _answer_so_far(client: socket.socket) -> str:
    """The status that was answered; nothing if none was yet."""
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
    """Room for the sockets of a crowd, here and in the servers that are started meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(FILES, before[1])), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


ATTACKS = (
    Attack("waiting edits", waiting_edits),
    Attack("idle connections", idle_connections),
    Attack("silent connections", silent_connections),
    Attack("half-sent requests", half_sent_requests),
    Attack("connections with half a body", half_sent_bodies),
)
