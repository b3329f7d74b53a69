"""The supervisor hears from a real server over a real socket: its start, its beats while the loop turns, its end."""

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
from tests.api.edge import edge_app

EVERY = 0.05
FROZEN = """
import re, sys
from service.runtime.supervisor import Supervisor
Supervisor(frozen_s=0.5).ready()
re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter for longer than anybody waits
"""


class Ear:
    """A socket of systemd's kind."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)

    def hear(self, within_s: float) -> str | None:
        """The next state that is told, or None if none is in time."""
        self._socket.settimeout(within_s)
        try:
            return self._socket.recv(1024).decode()
        except TimeoutError:
            return None

    def empty(self) -> None:
        """Forget what was told before."""
        while self.hear(1e-6) is not None:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    made = Ear(f"@errata-{os.getpid()}-{tmp_path.name}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield made
    made.close()


def test_a_loop_that_turns_beats_and_one_that_is_blocked_does_not(ear: Ear) -> None:
    app = edge_app(Settings())
    current = SimpleNamespace(version=0, epoch=0)
    app.state.server = SimpleNamespace(lifecycle=SimpleNamespace(follower=SimpleNamespace(current=current)))
    server = UvicornServer(uvicorn_config(app, Settings(port=0)), Supervisor(ear.address, limit_s=2 * EVERY))
    loops: list[asyncio.AbstractEventLoop] = []
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait(30)

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        started = ear.hear(30)
        beats = [ear.hear(30) for _ in range(3)]
        loops[0].call_soon_threadsafe(block)
        assert blocked.wait(30)
        ear.empty()
        during = ear.hear(10 * EVERY)
        go_on.set()
        after = ear.hear(30)
    finally:
        go_on.set()
        server.should_exit = True
        thread.join(30)
    told = list(iter(lambda: ear.hear(0.01), None))

    assert (started, beats) == ("READY=1", ["WATCHDOG=1"] * 3)
    assert (during, after) == (None, "WATCHDOG=1")
    assert told[-1] == "STOPPING=1"


def test_a_process_whose_loop_does_not_turn_ends_itself_and_says_where(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert "most recent call first" in ended.stderr


def test_an_orderly_end_is_not_taken_for_a_frozen_loop() -> None:
    script = """
import time
from service.runtime.supervisor import Supervisor
supervisor = Supervisor(frozen_s=0.2)
supervisor.ready()
supervisor.stopping()
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
def test_the_limit_is_the_one_that_the_environment_names_for_this_process(environment: dict[str, str], limit_s: float) -> None:
    assert Supervisor.of(environment)._limit_s == limit_s


def test_nobody_to_tell_and_nobody_who_listens_do_no_harm(tmp_path: Path) -> None:
    for supervisor in (Supervisor(), Supervisor(""), Supervisor(str(tmp_path / "gone"), limit_s=1)):
        supervisor.ready()
        supervisor.beat()
        supervisor.stopping()
        supervisor.close()
