"""A server for one command: the one at `--server`, or one of its own over the configured data folder, stopped at the end.

So a command line works the same beside a running server and without one, and there is one way into the store: HTTP.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from service.client.startup import STILL_S, Start, Told, kept, last_said, silent
from service.domain.errors import Conflict, Refused, Unavailable
from service.settings import Settings, environment_of
from service.store.database import Store

BURY_S = 1.0  # from a broken connection to the end of the process that broke it
ANSWER_S = 60.0  # what a call that moves the head may take on a busy machine
SERVE = (sys.executable, "-m", "service", "serve")


class LocalServer:
    """A server process on a free port of this machine, under the settings in `environment`; its log goes to a file.

    The log tells how far a start is, so it is written in full, whatever the level in the settings.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, command: Sequence[str] = SERVE) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        own = {"ERRATA_HOST": "127.0.0.1", "ERRATA_PORT": str(self.port), "ERRATA_LOG_LEVEL": "info"}
        self._environment = {**environment, **own}
        self._log, self._command = log, command

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, told: Told = silent, *, still_s: float = STILL_S) -> None:
        """Start it and wait until it is ready; `told` hears how far that is. Raises Unavailable if it ends or stands still."""
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the command, which then stops its server in order.
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True)
        try:
            Start(self.url, self._log, lambda: not self.is_running(), told, still_s=still_s).wait()
        except BaseException:
            self.kill()
            raise

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def client(self, timeout_s: float) -> httpx.Client:
        """A client of it, whose calls raise Unavailable once the process has ended: nobody needs to ask again."""
        return httpx.Client(base_url=self.url, timeout=timeout_s, transport=_Watching(self))

    def raise_if_ended(self) -> None:
        """Raise Unavailable, with the last that it said, if its process has ended or is about to."""
        if self.process is None:
            return
        try:
            number = self.process.wait(BURY_S)
        except subprocess.TimeoutExpired:
            return
        how = f"was ended by the signal {-number}" if number < 0 else f"ended with {number}"
        raise Unavailable(f"the server of this command {how}; the last that it said: {last_said(self._log)}{kept(self._log)}")

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ask it to end, and see to it that it does."""
        if self.process is not None and self.is_running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """kill -9: no goodbye, nothing flushed."""
        if self.process is not None and self.is_running():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class _Watching(httpx.HTTPTransport):
    """Calls to a server of one's own: one that breaks because the process has ended says so."""

    def __init__(self, server: LocalServer) -> None:
        super().__init__()
        self._server = server

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, or what there is instead."""
        try:
            return super().handle_request(request)
        except httpx.TransportError as error:
            if not isinstance(error, httpx.TimeoutException):
                self._server.raise_if_ended()
            raise


@contextmanager
def server_for(url: str | None, settings: Settings, told: Told = silent) -> Iterator[httpx.Client]:
    """A client of the server at `url`, or of one that runs under `settings` as long as the block does; `told` hears how far the
    start of that one is.

    Raises Refused for an address that is none, Conflict if a running server has the data folder already, Unavailable if a server
    of one's own does not come up.
    """
    if url is not None:
        with _client(url) as client:
            yield client
        return
    refuse_used_folder(settings)
    with _ending_in_order(), tempfile.TemporaryDirectory(prefix="errata-server-") as folder:
        server = LocalServer(environment_of(settings), Path(folder) / "server.log")
        try:
            server.start(told)
            with server.client(ANSWER_S) as client:
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
        store.lock_folder()
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
