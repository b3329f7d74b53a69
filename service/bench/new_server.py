"""A server of a benchmark, over a new data folder that is removed at the end; and waiting until nothing waits in it."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

from service.bench.contenders import build_environment
from service.bench.neutral_cache import cached_neutral
from service.client.errata_client import ErrataClient
from service.client.local_server import LocalServer
from service.client.progress import show_progress
from service.client.waiting import WAITING, wait_until_live
from service.settings import environment_without_settings

WAIT_S = 60.0  # the longest wait of a POST
First = Callable[[Callable[[ErrataClient], Iterator[Any]]], Any | None]  # the first item of a list, if it has one


@dataclass(frozen=True)
class NewServer:
    """A running server: its client, its data folder, and its process."""

    client: ErrataClient
    data: Path
    process_id: int


@contextmanager
def run_new_server(contender: str, model: str, *, every: int, environment: Mapping[str, str]) -> Iterator[NewServer]:
    """A new server with the settings of a contender. Those in `environment` come before them.

    Raises Unavailable if the server does not start, and in calls after the server has ended.
    """
    with tempfile.TemporaryDirectory(prefix="errata-bench-", ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        own = {"ERRATA_MODEL": model, "ERRATA_DATA_DIR": folder, **build_environment(contender, every=every), **environment}
        with cached_neutral(data / "neutral"):
            server = LocalServer(environment_without_settings() | own, data / "server.log")
            try:
                with show_progress("starting the server") as report:
                    server.start(report)
                assert server.process is not None
                with server.client(WAIT_S) as client:
                    yield NewServer(client, data, server.process.pid)
            finally:
                server.stop()


def wait_until_nothing_waits(first: First, *, patience_s: float, idle_s: float) -> None:
    """Wait until no edit is unsettled or deferred, as `wait_until_live` does. `first` asks the server for a list."""

    def find_waiting() -> Counter[str]:
        """The statuses of waiting edits that any edit has, each with the count 1."""
        return Counter(status for status in WAITING if first(methodcaller("list_edits", status=status, limit=1)) is not None)

    def is_retraining() -> bool:
        last = first(methodcaller("list_jobs", kind=["retrain"], limit=1))
        return last is not None and last["status"] in ("queued", "running")

    wait_until_live(find_waiting, is_retraining, patience_s=patience_s, idle_s=idle_s)
