"""The server that a command asks: the one at `--server`, or a local server over the configured data folder, stopped at the end.

So a command works the same beside a running server and without one, and HTTP is the only way into the store.
"""

import ctypes
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

from service.client.errata_client import ANSWER_S, ErrataClient
from service.client.retries import Retries
from service.client.startup import STALL_S, Progress, ServerStart, copy_log, describe_last_line, ignore_progress
from service.domain.errors import Conflict, Refused, Unavailable
from service.settings import Settings, environment_of
from service.store.database import Store

EXIT_S = 1.0  # from a broken connection to the end of the process that broke it
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
SERVE = (sys.executable, "-m", "service", "serve")


class LocalServer:
    """A server process on a free port of this machine, under the settings in `environment`; its log goes to a file.

    The log shows the progress of a start, so its level is `info`, whatever the level in the settings.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, command: Sequence[str] = SERVE) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        fixed = {"ERRATA_HOST": "127.0.0.1", "ERRATA_PORT": str(self.port), "ERRATA_LOG_LEVEL": "info"}
        self._environment = {**environment, **fixed}
        self._log, self._command = log, command

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        with self._log.open("ab") as log:
            # The process has its own session: Ctrl-C reaches only the command, which then stops its server in order.
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_end_with_parent if _LIBC is not None else None,
            )

    def start(self, progress: Progress = ignore_progress, *, stall_s: float = STALL_S) -> None:
        """Start the process and wait until the server is ready. Raises Unavailable if the process ends or stalls before."""
        self.launch()
        try:
            ServerStart(self.url, self._log, lambda: not self.is_running(), progress, stall_s=stall_s).wait()
        except BaseException:
            self.kill()
            raise

    def is_running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def client(self, timeout_s: float, retries: Retries | None = None) -> ErrataClient:
        """A client whose calls raise Unavailable once the process has ended, so that no call is repeated."""
        return ErrataClient(self.url, timeout_s=timeout_s, retries=retries, transport=_LocalTransport(self))

    def raise_if_ended(self) -> None:
        """Raise Unavailable, with the last log line, if the process has ended or ends within a second."""
        if self.process is None:
            return
        try:
            number = self.process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return
        end = f"was ended by the signal {-number}" if number < 0 else f"ended with {number}"
        last_line = f"its last log line: {describe_last_line(self._log)}{copy_log(self._log)}"
        raise Unavailable(f"the server of this command {end}; {last_line}")

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop the process by SIGTERM, and by SIGKILL after `timeout_s` seconds."""
        if self.process is not None and self.is_running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill the process by SIGKILL: nothing is flushed."""
        if self.process is not None and self.is_running():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class _LocalTransport(httpx.HTTPTransport):
    """The transport to a local server: a broken call reports that the process has ended, if it has."""

    def __init__(self, server: LocalServer) -> None:
        super().__init__()
        self._server = server

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The response. Raises Unavailable if the connection broke because the process has ended."""
        try:
            return super().handle_request(request)
        except httpx.TransportError as error:
            if not isinstance(error, httpx.TimeoutException):
                self._server.raise_if_ended()
            raise


@contextmanager
def open_client(url: str | None, settings: Settings, progress: Progress = ignore_progress) -> Iterator[ErrataClient]:
    """A client of the server at `url`, or without a URL of a local server that runs under `settings` as long as the block.

    `progress` is called with each step of the local server's start. Raises Refused for a malformed URL, Conflict if a running
    server uses the data folder, Unavailable if the local server does not start.
    """
    if url is not None:
        with _client_of(url) as client:
            yield client
        return
    refuse_used_folder(settings)
    with _exit_at_sigterm(), tempfile.TemporaryDirectory(prefix="errata-server-") as folder:
        server = LocalServer(environment_of(settings), Path(folder) / "server.log")
        try:
            server.start(progress)
            with server.client(ANSWER_S) as client:
                yield client
        finally:
            server.stop(settings.limits.drain_s * 2 + 10)


@contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends this process by SystemExit, so that the local server is stopped too."""
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
    """Raise Conflict if a running server holds the folder of the SQLite file."""
    store = Store(settings.store_url)
    try:
        store.lock_folder()
    except Conflict:
        raise Conflict("a running server is using the data folder: name it with --server URL") from None
    finally:
        store.close()


def _client_of(url: str) -> ErrataClient:
    try:
        return ErrataClient(url)
    except Refused:
        raise Refused("--server must be an address such as http://127.0.0.1:8000", field="server") from None


def _end_with_parent() -> None:
    """In the new process: end by SIGTERM when the command ends, also when it is killed. Otherwise the server would keep the data
    folder, and a repeated command would be refused.
    """
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
