"""Servers for benchmarks: real processes, each on its own port, started by the zygote and used over HTTP."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.bench.neutral_cache import CACHE_FOLDER, cached_neutral
from service.client.errata_client import ErrataClient
from service.client.local_server import free_port
from service.client.retries import NO_RETRIES
from service.client.startup import ServerStart
from service.settings import environment_without_settings

POLL_S = 0.02
TICKS = os.sysconf("SC_CLK_TCK")
BURY_S = 30.0


class Zygote:
    """The parent of all servers of one benchmark."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_without_settings() | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self._receive()

    def start(self, settings: Mapping[str, Any], log: Path) -> int:
        """Fork a server; its process id."""
        return int(self._send({"start": dict(settings), "log": str(log)})["pid"])

    def bury(self, pid: int) -> int | None:
        """Wait for a server's end; the signal that ended it, if one did."""
        return self._send({"bury": pid})["signal"]

    def close(self) -> None:
        """End the zygote and all of its servers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(BURY_S)

    def _send(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class ServerProcess:
    """One data folder, with at most one server over it at any time."""

    def __init__(self, zygote: Zygote, folder: Path, **settings: Any) -> None:
        self._zygote, self.folder = zygote, folder
        self._settings = {"data_dir": str(folder), "log_level": "warning", **settings}
        self._port = 0
        self._pid: int | None = None
        self.start_s = 0.0

    def start(self, **overrides: Any) -> ErrataClient:
        """Start the server, wait until it is ready, and return a client, which repeats no request: each is part of a measurement.
        `overrides` are settings of this start alone.
        """
        return ErrataClient(self.launch(**overrides), timeout_s=120, retries=NO_RETRIES)

    def launch(self, **overrides: Any) -> str:
        """Start the server, wait until it is ready, and return its address. `overrides` are settings of this start alone."""
        self._port = free_port()
        started_at = time.monotonic()
        self._pid = self._zygote.start({**self._settings, **overrides, "port": self._port}, self.folder / "server.log")
        url = f"http://127.0.0.1:{self._port}"
        ServerStart(url, self.folder / "server.log", self.is_gone, activity=self._cpu_ticks, poll_s=POLL_S).wait()
        self.start_s = time.monotonic() - started_at
        return url

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._pid is not None, "the server is not started"
        return self._pid

    def _cpu_ticks(self) -> int:
        """Seconds that its process computed, which is how far a start is whose log holds warnings alone."""
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return 0
        return (int(fields[11]) + int(fields[12])) // TICKS

    def is_gone(self) -> bool:
        """Whether the process has ended. A zombie has ended."""
        if self._pid is None:
            return True
        try:
            state = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    def kill_without_waiting(self) -> None:
        """kill -9 without waiting, from any thread."""
        if self._pid is not None and not self.is_gone():
            os.kill(self._pid, signal.SIGKILL)

    def kill(self) -> None:
        """kill -9 if the server runs, and wait until the process has ended."""
        if self._pid is not None:
            pid, self._pid = self._pid, None
            os.kill(pid, signal.SIGKILL)
            self._zygote.bury(pid)

    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


@contextmanager
def run_server(zygote: Zygote, *, cache: Path = CACHE_FOLDER, **settings: Any) -> Iterator[ServerProcess]:
    """A server over a new folder, which is deleted at the end. Neutral sentences stay in the folder `cache`."""
    with tempfile.TemporaryDirectory(prefix="errata-benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        process = ServerProcess(zygote, folder, **settings)
        with cached_neutral(folder / "neutral", cache):
            try:
                yield process
            finally:
                process.kill()
