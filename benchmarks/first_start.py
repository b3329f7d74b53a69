"""The first start of a server on a model: seconds to the first answer, to an edit that is live, and to all sentences.

Nothing is taken from a cache: the data folder is new. The edit is posted as soon as the port is there.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.command import build_parser, parse_options, write
from service.bench.contenders import CONTENDERS
from service.client.errata_client import ErrataClient
from service.client.errors import ServerProblem, Unreachable
from service.client.local_server import LocalServer
from service.client.retries import NO_RETRIES
from service.client.waiting import LIVE
from service.domain.errors import Unavailable
from service.settings import environment_without_settings

POLL_S = 0.1
PATIENCE_S = 3_600.0
# Acceptance refuses nothing: the seconds are those of a fit and its publication, whether or not the edit would be accepted.


@dataclass
class StartWatch:
    """Seconds since the process was started, by name of what was there then."""

    started_at: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def wait(self, name: str, is_there: Callable[[], bool]) -> None:
        """Ask again and again until it is there. Raises Unavailable after an hour."""
        while not is_there():
            if time.monotonic() - self.started_at > PATIENCE_S:
                raise Unavailable(f"the benchmark waited an hour for {name}")
            time.sleep(POLL_S)
        self.seconds[name] = time.monotonic() - self.started_at


def main() -> None:
    """The command."""
    parser = build_parser(__doc__)
    parser.add_argument("--dtype", default="auto", help="as the setting dtype")
    parser.add_argument("--prompt", default="Question: What is the capital of Spain?\nAnswer:")
    parser.add_argument("--target", default="Lisbon")
    arguments = parse_options(parser)
    with tempfile.TemporaryDirectory(prefix="errata-first-start-", ignore_cleanup_errors=True) as folder:
        server = _server(arguments.model, arguments.dtype, Path(folder))
        try:
            first = measure_start(server, prompt=arguments.prompt, target=arguments.target)
            with server.client(60.0) as client:
                model = client.get_model()
            server.stop()
            second = measure_second_start(server)
        finally:
            server.stop()
    name = f"first_start_{Path(arguments.model).name.lower()}"
    write(arguments.results, name, {"model": arguments.model, "dtype": model["dtype"], "first": first, "second": second})


def measure_start(server: LocalServer, *, prompt: str, target: str) -> dict[str, float]:
    """Seconds from the first start of the process to each step."""
    watch = StartWatch()
    server.launch()
    with server.client(60.0, NO_RETRIES) as client:
        watch.wait("first answer", lambda: _answers(client, prompt))
        edit = client.post_edit({"prompt": prompt, "target": target})
        watch.wait("first edit live", lambda: client.get_edit(edit["id"])["status"] in LIVE)
        watch.wait("all sentences", lambda: client.get_health("ready")["checks"].get("edits", "ok") == "ok")
    return watch.seconds


def measure_second_start(server: LocalServer) -> dict[str, float]:
    """Seconds of a start over the same data folder."""
    watch = StartWatch()
    server.launch()
    with server.client(60.0, NO_RETRIES) as client:
        watch.wait("first answer", lambda: _answers(client, "Spain"))
        watch.wait("all sentences", lambda: client.get_health("ready")["checks"].get("edits", "ok") == "ok")
    return watch.seconds


def _server(model: str, dtype: str, folder: Path) -> LocalServer:
    own = {"ERRATA_MODEL": model, "ERRATA_DATA_DIR": str(folder), "ERRATA_DTYPE": dtype, **CONTENDERS["accept_all"]}
    return LocalServer(environment_without_settings() | own, folder / "server.log")


def _answers(client: ErrataClient, prompt: str) -> bool:
    try:
        answer: Any = client.generate(prompt, max_new_tokens=4)
        return "text" in answer
    except (ServerProblem, Unreachable):
        return False


if __name__ == "__main__":
    main()
