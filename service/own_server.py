"""A server for one command: the one at `--server`, or one of its own over the configured data folder, stopped at the end.

So a command line works the same beside a running server and without one, and there is one way into the store: HTTP.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from service.domain.errors import Conflict, Refused, Unavailable
from service.settings import Settings, environment_of
from service.store.session import Store

START_S = 180.0  # loading torch and sampling the neutral sentences of a new base on one busy core
LOOK_S = 0.2
ANSWER_S = 60.0  # what a call that moves the head may take on a busy machine
LAST_CHARACTERS = 1500


class OwnServer:
    """A server process on a free port of this machine, under the settings in `environment`; its log goes to a file."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {**environment, "ERRATA_HOST": "127.0.0.1", "ERRATA_PORT": str(self.port)}
        self._log = log

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready. Raises Unavailable with the end of its log if it does not come up."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "service", "serve"]
            # A session of its own: Ctrl-C is for the command, which then stops its server in order.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment, start_new_session=True)
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=2, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(LOOK_S)
        last = self._log.read_text(errors="replace")[-LAST_CHARACTERS:]
        self.kill()
        raise Unavailable(f"the server did not become ready; the end of its log:\n{last}")

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ask it to end, and see to it that it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """kill -9: no goodbye, nothing flushed."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@contextmanager
def server_for(url: str | None, settings: Settings) -> Iterator[httpx.Client]:
    """A client of the server at `url`, or of one that runs under `settings` as long as the block does.

    Raises Refused for an address that is none, Conflict if a running server has the data folder already, Unavailable if a server
    of one's own does not come up.
    """
    if url is not None:
        with _client(url) as client:
            yield client
        return
    refuse_used_folder(settings)
    with _ending_in_order(), tempfile.TemporaryDirectory(prefix="errata-server-") as folder:
        server = OwnServer(environment_of(settings), Path(folder) / "server.log")
        try:
            server.start()
            with _client(server.url) as client:
                yield client
        finally:
            server.stop(settings.limits.drain_s * 2 + 10)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Inside, SIGTERM ends this process as an exception does, so that a server of one's own is not left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse_used_folder(settings: Settings) -> None:
    """Raise Conflict if a running server has the SQLite file's folder."""
    store = Store(settings.store_url)
    try:
        store.hold_folder()
    except Conflict:
        raise Conflict("a running server is using the data folder: name it with --server URL") from None
    finally:
        store.close()


def _client(url: str) -> httpx.Client:
    try:
        where = httpx.URL(url)
    except httpx.InvalidURL:
        where = httpx.URL("")
    if where.scheme not in ("http", "https") or not where.host:
        raise Refused("--server must be an address such as http://127.0.0.1:8000", field="server")
    # Proxies of the environment are for the web, not for a server on this machine.
    return httpx.Client(base_url=where, timeout=ANSWER_S, trust_env=where.host not in ("127.0.0.1", "localhost", "::1"))


def told(error: Exception) -> str:
    """An error as a sentence: the server's own, if it sent one."""
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return str(error.response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            return f"the server answered {error.response.status_code}"
    if isinstance(error, httpx.TransportError):
        return f"the server cannot be reached ({type(error).__name__})"
    return str(error)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
