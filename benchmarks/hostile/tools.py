"""The tools of an attack: real servers over their own folders, probes of `/health/live`, and memory measurements."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.servers import ServerProcess, Zygote, run_server

BEAT_S = 0.02  # between two requests of a health probe
PATIENCE_S = 300.0  # longest wait for an answer of a health probe, so that a frozen server shows as a slow answer
PAGE_BYTES = 4096


@dataclass(frozen=True)
class AttackResult:
    """Whether the server withstood the attack, and one sentence with figures."""

    is_held: bool
    finding: str


@dataclass(frozen=True)
class Attack:
    """One attack: its name, and the function that runs it."""

    name: str
    make: Callable[["AttackTools"], AttackResult]


@dataclass
class HealthProbe:
    """The answers of `/health/live` during an attack: the seconds of each, and the number of missing or wrong ones."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def worst_ms(self) -> float:
        """The slowest answer."""
        return 1000 * max(self.seconds, default=float("nan"))


@dataclass
class AttackTools:
    """The tools of one attack. The results of its health probes go to the table beside its finding."""

    zygote: Zygote
    folder: Path
    health_probes: list[HealthProbe] = field(default_factory=list)

    def server(self, **settings: Any) -> AbstractContextManager[ServerProcess]:
        """A server of the embedded model over a new folder. `start` it inside the block, with further settings if needed."""
        return run_server(self.zygote, **settings)

    @contextmanager
    def probe_health(self, url: str) -> Iterator[HealthProbe]:
        """Request `/health/live` on new connections, as an orchestrator does, until the block ends."""
        probe, stop = HealthProbe(), threading.Event()
        thread = threading.Thread(target=_probe_health, args=(url, probe, stop), daemon=True)
        self.health_probes.append(probe)
        thread.start()
        try:
            yield probe
        finally:
            stop.set()
            thread.join(PATIENCE_S)


def _probe_health(url: str, probe: HealthProbe, stop: threading.Event) -> None:
    while not stop.is_set():
        started_at = time.monotonic()
        probe.failures += read_status(url, "/health/live") != 200
        probe.seconds.append(time.monotonic() - started_at)
        stop.wait(BEAT_S)


def read_status(url: str, path: str, timeout_s: float = PATIENCE_S) -> int:
    """The status of a GET on a new connection; 0 if there was no answer. httpx would create a TLS context for each connection, in
    tens of milliseconds of processor time.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


class MemoryWatch:
    """The growth of a process' memory during a block: its highest resident memory over the one at the start."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._most = resident_bytes(pid)

    @property
    def grown_mb(self) -> float:
        """The growth in megabytes of 10^6 bytes."""
        return (self._most - self._before) / 1e6

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                self._most = max(self._most, resident_bytes(self._pid))
            except (OSError, IndexError):
                return  # the process has ended
