"""The health probe of an attack: a process that requests `/health/live` and counts what it saw."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from benchmarks.hostile.tools import AttackTools
from benchmarks.servers import Zygote

SLOW_S = 0.3


@contextmanager
def health_server(status: int) -> Iterator[tuple[str, list[str]]]:
    """A server whose second answer is slow. Gives its address and the paths that were requested."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            if len(paths) == 2:
                threading.Event().wait(SLOW_S)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def probe(url: str, paths: list[str], tmp_path: Path) -> Any:
    tools = AttackTools(cast(Zygote, None), tmp_path)
    with tools.probe_health(url) as seen:
        while len(paths) < 4:
            threading.Event().wait(0.01)
    return seen


def test_a_slow_answer_shows_in_the_seconds_of_the_probe(tmp_path: Path) -> None:
    with health_server(200) as (url, paths):
        seen = probe(url, paths, tmp_path)
    assert set(paths) == {"/health/live"}
    assert (len(seen.seconds), seen.failures) == (len(paths), 0)
    assert seen.seconds[1] >= SLOW_S


def test_wrong_answers_are_counted_as_failures(tmp_path: Path) -> None:
    with health_server(503) as (url, paths):
        seen = probe(url, paths, tmp_path)
    assert seen.failures == len(paths)
