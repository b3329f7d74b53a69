"""The tools of an attack: real servers over their own folders, probes of `/health/live`, and memory measurements."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hostile.health_probe import BEAT_S, PATIENCE_S, HealthProbe
from benchmarks.servers import ServerProcess, Zygote, run_server
from service.client.local_server import free_port

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
class AttackTools:
    """The tools of one attack. The results of its health probes go to the table beside its finding: those on the clients' port,
    and those on the server's port for health checks alone.
    """

    zygote: Zygote
    folder: Path
    health_probes: list[HealthProbe] = field(default_factory=list)
    listener_probes: list[HealthProbe] = field(default_factory=list)
    health_port: int = 0  # of the last server

    def server(self, **settings: Any) -> AbstractContextManager[ServerProcess]:
        """A server of the embedded model over a new folder. `start` it inside the block, with further settings if needed."""
        self.health_port = free_port()
        return run_server(self.zygote, health_port=self.health_port, **settings)

    @contextmanager
    def probe_health(self, url: str) -> Iterator[HealthProbe]:
        """Request `/health/live` on new connections, as an orchestrator does, until the block ends, which fills the result. The
        port for health checks is asked at the same time.
        """
        probe = HealthProbe()
        self.health_probes.append(probe)
        with ExitStack() as stack:
            stack.enter_context(_probe(url, probe))
            if self.health_port:
                self.listener_probes.append(HealthProbe())
                stack.enter_context(_probe(f"http://127.0.0.1:{self.health_port}", self.listener_probes[-1]))
            yield probe


@contextmanager
def _probe(url: str, probe: HealthProbe) -> Iterator[None]:
    """Fill `probe` by a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hostile.health_probe", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first answer is here: the process has started
        try:
            yield
        finally:
            seen = json.loads(process.communicate(timeout=PATIENCE_S)[0])
            probe.seconds, probe.failures = seen["seconds"], seen["failures"]


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
