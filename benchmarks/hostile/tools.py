"""Where an attack is made: real servers over folders of their own, and a pulse that asks `/health/live` all the while."""

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

BEAT_S = 0.02  # between two questions of a pulse
PATIENCE_S = 300.0  # longest wait for one of its answers: a frozen server is to be seen as one, and not as a fault of the pulse
PAGE_BYTES = 4096


@dataclass(frozen=True)
class AttackResult:
    """Whether the server held, and one sentence with figures on what was seen."""

    is_held: bool
    finding: str


@dataclass(frozen=True)
class Attack:
    """One attack: its name, and what makes it and says what came of it."""

    name: str
    make: Callable[["AttackTools"], AttackResult]


@dataclass
class HealthProbe:
    """What `/health/live` said during an attack: seconds an answer took, and how often there was none or a wrong one."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def worst_ms(self) -> float:
        """The slowest answer."""
        return 1000 * max(self.seconds, default=float("nan"))


@dataclass
class AttackTools:
    """What an attack is given. A pulse that it takes is written to the table beside its finding."""

    zygote: Zygote
    folder: Path
    health_probes: list[HealthProbe] = field(default_factory=list)

    def server(self, **settings: Any) -> AbstractContextManager[ServerProcess]:
        """A server of the embedded model over a new folder; `start` it inside the block, under more settings if need be."""
        return run_server(self.zygote, **settings)

    @contextmanager
    def probe_health(self, url: str) -> Iterator[HealthProbe]:
        """Ask `/health/live` on new connections, as a probe does, until the block ends."""
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
    """The status of a GET on a new connection; 0 if there was no answer. A client that costs little: httpx makes a context of TLS
    for each, in tens of milliseconds of the processor.
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
    """The memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


class MemoryWatch:
    """The most memory that a process had while a block ran, beyond what it had before."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._most = resident_bytes(pid)

    @property
    def grown_mb(self) -> float:
        """In megabytes of 10^6 bytes."""
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
