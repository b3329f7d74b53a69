"""The listener for health checks: it answers while the clients' event loop cannot, and says so when that loop is blocked."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.client.local_server import free_port
from service.domain.errors import Conflict, Refused
from service.runtime import health_listener
from service.runtime.health_listener import HealthListener
from service.runtime.sockets import bind_port
from service.settings import environment_without_settings, load_settings

WAIT_S = 60
ALL_WELL = dict.fromkeys(("database", "head", "checkpoints", "weights", "files", "worker", "edits", "server"), "ok")


class ClientsLoop:
    """An event loop in a thread, with a listener beside it; `checks` is what its server would find."""

    def __init__(self) -> None:
        self.checks: Mapping[str, str] = ALL_WELL
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def listen(self, port: int = 0) -> tuple[HealthListener, str]:
        """Start the listener; also its address."""
        self._bound = bind_port("127.0.0.1", port)
        sockets = self._bound.__enter__()
        self.listener = asyncio.run_coroutine_threadsafe(self._make(sockets), self.loop).result(WAIT_S)
        self.listener.start()
        return self.listener, f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    async def _make(self, sockets: list) -> HealthListener:
        async def checks() -> Mapping[str, str]:
            return self.checks

        return HealthListener(sockets, checks)

    def block(self) -> threading.Event:
        """Block the loop until the event is set."""
        release = threading.Event()
        is_blocked = threading.Event()

        def wait() -> None:
            is_blocked.set()
            release.wait(WAIT_S)

        self.loop.call_soon_threadsafe(wait)
        assert is_blocked.wait(WAIT_S)
        return release

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.listener.stop(), self.loop).result(WAIT_S)
        self._bound.__exit__(None, None, None)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()


@pytest.fixture
def clients() -> Iterator[ClientsLoop]:
    made = ClientsLoop()
    yield made
    made.close()


def test_liveness_is_answered_while_the_clients_loop_is_blocked(clients: ClientsLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_listener, "CHECKS_S", 0.1)
    _, url = clients.listen()
    release = clients.block()

    live, ready = httpx.get(f"{url}/health/live"), httpx.get(f"{url}/health/ready")

    release.set()
    assert (live.status_code, live.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()["checks"]) == (503, {"loop": "no answer within 0.1 s"})


def test_a_loop_without_a_beat_for_long_is_reported_and_a_beat_heals_it(
    clients: ClientsLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, _ = clients.listen()
    now = time.monotonic()
    monkeypatch.setattr(health_listener, "monotonic", lambda: now + health_listener.STUCK_S + 1)

    stuck = listener.live()
    listener.beat()
    healed = listener.live()

    assert stuck[0] == 503 and stuck[1].checks["loop"].startswith("blocked for 1")
    assert healed[0] == 200


def test_a_loop_that_ends_in_an_orderly_way_is_not_reported_as_blocked(
    clients: ClientsLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, _ = clients.listen()
    listener.drain()
    now = time.monotonic()
    monkeypatch.setattr(health_listener, "monotonic", lambda: now + 100 * health_listener.STUCK_S)

    assert listener.live()[0] == 200


def test_readiness_while_the_clients_port_closes_does_not_ask_its_loop(clients: ClientsLoop) -> None:
    listener, url = clients.listen()
    release = clients.block()
    listener.drain()

    answer = httpx.get(f"{url}/health/ready")

    release.set()
    assert (answer.status_code, answer.json()["checks"]) == (503, {"server": "stopping"})


def test_a_check_that_began_before_the_end_is_answered(clients: ClientsLoop) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    async def slow() -> Mapping[str, str]:
        has_begun.set()
        await asyncio.to_thread(may_end.wait, WAIT_S)
        return ALL_WELL

    listener, url = clients.listen()
    listener._checks = slow
    with ThreadPoolExecutor(1) as callers:
        answer = callers.submit(httpx.get, f"{url}/health/ready", timeout=WAIT_S)
        assert has_begun.wait(WAIT_S)
        ending = asyncio.run_coroutine_threadsafe(listener.stop(), clients.loop)
        may_end.set()
        assert answer.result(WAIT_S).status_code == 200
        ending.result(WAIT_S)


def test_a_connection_is_closed_after_one_answer(clients: ClientsLoop) -> None:
    _, url = clients.listen()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=WAIT_S) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        received = b""
        while part := client.recv(65_536):
            received += part

    assert received.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ({}, 200, "ok"),
        ({"head": "version 7 cannot be read here"}, 200, "degraded"),
        ({"edits": "waiting for sentences"}, 200, "ok"),
        ({"database": "no answer within 2 s"}, 503, "unavailable"),
        ({"server": "stopping"}, 503, "unavailable"),
    ],
)
def test_readiness_is_that_of_the_clients_port(clients: ClientsLoop, fault: dict[str, str], status: int, said: str) -> None:
    clients.checks = {**ALL_WELL, **fault}
    _, url = clients.listen()

    answer = httpx.get(f"{url}/health/ready")

    assert (answer.status_code, answer.json()) == (status, {"status": said, "checks": {**ALL_WELL, **fault}})
    assert answer.headers["content-type"] == "application/json" and answer.headers["cache-control"] == "no-store"


def test_nothing_else_is_answered_on_the_port_of_health_checks(clients: ClientsLoop) -> None:
    _, url = clients.listen()

    other, wrong, head = httpx.get(f"{url}/edits"), httpx.post(f"{url}/health/live"), httpx.head(f"{url}/health/startup")

    assert (other.status_code, other.json()["type"]) == (404, "urn:errata:problem:not-found")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert (head.status_code, head.content) == (200, b"")


def test_a_port_on_which_another_process_listens_is_refused(clients: ClientsLoop) -> None:
    port = free_port()
    _, url = clients.listen(port)
    second = ClientsLoop()
    try:
        with pytest.raises(Conflict, match="ERRATA_HEALTH_PORT"):
            with bind_port("127.0.0.1", port, "ERRATA_HEALTH_PORT") as sockets:
                asyncio.run_coroutine_threadsafe(second._make(sockets), second.loop).result(WAIT_S).start()
    finally:
        second.loop.call_soon_threadsafe(second.loop.stop)
    assert httpx.get(f"{url}/health/live").status_code == 200


def test_the_port_of_the_clients_is_no_port_of_health_checks() -> None:
    with pytest.raises(Refused, match="health_port must be another port"):
        load_settings(port=8000, health_port=8000)
    assert load_settings(port=0, health_port=0).health_port == 0


def test_a_server_answers_health_checks_on_both_ports_and_ends_with_exit_code_0(tiny_model: Path, tmp_path: Path) -> None:
    port, health_port, log = free_port(), free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--data-dir", str(tmp_path / "data")]
    variables = {"ERRATA_NEUTRAL__SENTENCES": "8", "ERRATA_NEUTRAL__HELD_OUT": "0", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, "--model", str(tiny_model)],
            env=environment_without_settings() | variables | {"ERRATA_HEALTH_PORT": str(health_port)},
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
        )
    try:
        assert process.stdout is not None and process.stdout.readline(), log.read_text(errors="replace")
        answers = [
            httpx.get(f"http://127.0.0.1:{each}/health/{name}") for each in (port, health_port) for name in ("live", "ready")
        ]
        process.send_signal(signal.SIGTERM)
        code = process.wait(WAIT_S)
    finally:
        process.kill()
        process.communicate()

    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[1].json().keys() == answers[3].json().keys() == {"status", "checks"}
    assert code == 0, log.read_text(errors="replace")
    assert "Traceback" not in log.read_text(errors="replace")
