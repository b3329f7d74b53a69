"""Servers of a source tree on free ports of the loopback. A server always ends with its block."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import httpx

from benchmarks.compare.trees import Tree

STARTS_IN_S = 300.0
ENDS_IN_S = 30.0
CALL_S = 120.0
POLL_S = 0.05
QUIET_S = 0.15  # a server without work for so long is quiet
QUIET_WITHIN_S = 30.0
LAST_CHARACTERS = 1_500
# No retrain and no measurement begins by itself; each happens on request alone.
ON_REQUEST_ONLY = {
    "WINDOW__SOFT": "1000",
    "WINDOW__HARD": "1000",
    "WINDOW__DEFERRED": "1000",
    "WINDOW__DEFERRED_S": "1000000",
    "WINDOW__AGE_S": "1000000",
    "WINDOW__MAJOR_EVERY_S": "1000000",
    "WINDOW__MONITOR_S": "1000000",
    "WINDOW__LOCALITY_FALL": "1",
    "WINDOW__RETENTION_FLOOR": "0",
    "WINDOW__CAPABILITY_FLOOR": "0",
}
Result = TypeVar("Result")


class RevisionServer:
    """One server over one data folder. Settings are named as variables of the environment, without their prefix."""

    def __init__(self, tree: Tree, data: Path, **settings: str) -> None:
        self.tree, self.data = tree, data
        self._settings = ON_REQUEST_ONLY | {"LOG_LEVEL": "warning"} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        if not self.data.exists():  # else another revision may have written it, and it must not change
            shutil.copytree(self.tree.neutral, self.data / "neutral")
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        address = {"HOST": "127.0.0.1", "PORT": str(port), "DATA_DIR": str(self.data)}
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C interrupts this program alone, which then ends its servers in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"],
                cwd=self.tree.folder,
                env=self.tree.environment(self._settings | address),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        assert self._process is not None
        if kind is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_IN_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.copytree(self.data / "neutral", self.tree.neutral, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.part"))

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client of the ready server."""
        with httpx.Client(base_url=self._url, timeout=CALL_S, trust_env=False) as client:
            self._wait_until_ready(client)
            yield client

    def wait_until_quiet(self) -> None:
        """Wait until the server's process computes nothing, such as the scores of a recent edit."""
        deadline = time.monotonic() + QUIET_WITHIN_S
        ticks = self._ticks()
        while time.monotonic() < deadline:
            time.sleep(QUIET_S)
            ticks, previous = self._ticks(), ticks
            if ticks - previous <= 1:
                return
        raise TimeoutError(f"the server {self.tree.side} does not become quiet")

    def _wait_until_ready(self, client: httpx.Client) -> None:
        deadline = time.monotonic() + STARTS_IN_S
        while not _is_ready(client):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_end = self._log.read_text(encoding="utf-8", errors="replace")[-LAST_CHARACTERS:]
                raise RuntimeError(f"the server {self.tree.side} did not start; the end of its log:\n{log_end}")
            time.sleep(POLL_S)

    @property
    def _log(self) -> Path:
        return self.data / "server.log"

    def _ticks(self) -> int:
        """The processor time of the server, in hundredths of a second."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


@contextmanager
def run_server(tree: Tree, data: Path, **settings: str) -> Iterator[httpx.Client]:
    """A client of a server, which runs in this block."""
    with RevisionServer(tree, data, **settings) as server, server.client() as client:
        yield client


def run_on_both(
    trees: tuple[Tree, Tree], room: Path, work: Callable[[RevisionServer, httpx.Client], Result]
) -> tuple[Result, Result]:
    """The results of the same work on a new server of each tree. Both work at the same time."""

    def run_work(server: RevisionServer) -> Result:
        with server.client() as client:
            return work(server, client)

    # The servers end before the threads are joined: pending calls then fail, and so do their threads.
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        servers = [stack.enter_context(RevisionServer(tree, room / f"data-{tree.side}")) for tree in trees]
        before, after = [pool.submit(run_work, server) for server in servers]
        return before.result(), after.result()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
