"""A real server reports to its supervisor over a real socket: its start, that its loop runs, and its end."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.runtime.server import UvicornServer, uvicorn_config
from service.runtime.supervisor import Supervisor
from service.settings import Settings
from tests.api.edge_server import edge_app

INTERVAL_S = 0.05
FROZEN = """
import re, sys
from service.runtime.supervisor import Supervisor
Supervisor(frozen_s=0.5).report_ready()
re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter for longer than the test waits
"""


class NotifySocket:
    """A socket like the one on which systemd receives reports."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)

    def receive(self, within_s: float) -> str | None:
        """The next report, or None after `within_s` seconds."""
        self._socket.settimeout(within_s)
        try:
            return self._socket.recv(1024).decode()
        except TimeoutError:
            return None

    def discard(self) -> None:
        """Discard the reports so far."""
        while self.receive(1e-6) is not None:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def notify(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    receiver = NotifySocket(f"@errata-{os.getpid()}-{tmp_path.name}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield receiver
    receiver.close()


def test_a_running_loop_reports_and_a_blocked_loop_does_not(notify: NotifySocket) -> None:
    app = edge_app(Settings())
    current = SimpleNamespace(version=0, epoch=0)
    app.state.server = SimpleNamespace(lifecycle=SimpleNamespace(follower=SimpleNamespace(current=current)))
    server = UvicornServer(uvicorn_config(app, Settings(port=0)), Supervisor(notify.address, limit_s=2 * INTERVAL_S))
    loops: list[asyncio.AbstractEventLoop] = []
    blocked, released = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        released.wait(30)

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        started = notify.receive(30)
        alive_reports = [notify.receive(30) for _ in range(3)]
        loops[0].call_soon_threadsafe(block)
        assert blocked.wait(30)
        notify.discard()
        during = notify.receive(10 * INTERVAL_S)
        released.set()
        after = notify.receive(30)
    finally:
        released.set()
        server.should_exit = True
        thread.join(30)
    reports = list(iter(lambda: notify.receive(0.01), None))

    assert (started, alive_reports) == ("READY=1", ["WATCHDOG=1"] * 3)
    assert (during, after) == (None, "WATCHDOG=1")
    assert reports[-1] == "STOPPING=1"


def test_a_process_with_a_blocked_loop_ends_itself_and_prints_its_stack(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert "most recent call first" in ended.stderr


def test_an_orderly_end_is_not_mistaken_for_a_frozen_loop() -> None:
    script = """
import time
from service.runtime.supervisor import Supervisor
supervisor = Supervisor(frozen_s=0.2)
supervisor.report_ready()
supervisor.report_stopping()
time.sleep(0.6)
"""

    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("environment", "limit_s"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "60000000"}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "x"}, 0),
    ],
)
def test_the_limit_is_read_from_the_variables_for_this_process(environment: dict[str, str], limit_s: float) -> None:
    assert Supervisor.from_environment(environment)._limit_s == limit_s


def test_a_missing_supervisor_does_no_harm(tmp_path: Path) -> None:
    for supervisor in (Supervisor(), Supervisor(""), Supervisor(str(tmp_path / "gone"), limit_s=1)):
        supervisor.report_ready()
        supervisor.report_alive()
        supervisor.report_stopping()
        supervisor.close()
