"""A Postgres and a Redis for tests and benchmarks: the one named by the environment, else this machine's, else a private one.

A private server is started from its binaries and ends with this process.
"""

import atexit
import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from service.client.local_server import free_port

POSTGRES_VARIABLE = "TEST_POSTGRES_URL"  # e.g. postgresql://user@host:5432/postgres; the user must be allowed to create databases
REDIS_VARIABLE = "TEST_REDIS_URL"
STARTS_IN_S = 120.0
ENDS_IN_S = 10.0
LAST_CHARACTERS = 1_000


class DidNotStart(RuntimeError):
    """A private server did not start. The start is tried once a process."""


def postgres_server() -> str | None:
    """The URL of a Postgres server's maintenance database; None if there is neither a server nor a binary."""
    return _url_or_raise(_postgres())


def redis_server() -> str | None:
    """The URL of a Redis server; None if there is neither a server nor a binary."""
    return _url_or_raise(_redis())


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The URL of a new database of a Postgres server, dropped at the end."""
    import psycopg
    from psycopg import sql

    name = f"errata_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.rsplit("/", 1)[0] + f"/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def private_postgres(binaries: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The URL of a new server's maintenance database, and its process. Postgres refuses root, so root uses another user."""
    user = _unprivileged() if os.geteuid() == 0 else None
    with _temporary_folder("errata-postgres-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        port, data, log = free_port(), folder / "data", folder / "log"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "errata", "-A", "trust", "-N"]
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        command = [str(binaries / "postgres"), "-D", str(data), *options]
        url = f"postgresql://errata@127.0.0.1:{port}/postgres"
        # SIGINT: Postgres does not wait for open sessions, as it would at SIGTERM.
        with _run_process(command, log, lambda: _postgres_answers(url), stop_signal=signal.SIGINT, user=user) as process:
            yield url, process


def postgres_binaries() -> Path | None:
    """The folder of Postgres' programs, if there is one."""
    initdb = shutil.which("initdb")
    folders = [Path(initdb).resolve().parent] if initdb else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextmanager
def private_redis(binary: str, port: int | None = None) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The URL of a new, empty server, and its process."""
    port = port or free_port()
    with _temporary_folder("errata-redis-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        url = f"redis://127.0.0.1:{port}/0"
        with _run_process(command, folder / "log", lambda: _redis_answers(url), stop_signal=signal.SIGKILL) as process:
            yield url, process


@contextmanager
def freeze(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Stop a private server and all of its children in this block. The kernel still accepts data for them."""
    pids = [process.pid, *_children(process.pid)]
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == pid:
            pids.append(int(path.parent.name))
    return pids


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def _run_process(
    command: list[str], log: Path, is_ready: Callable[[], bool], *, stop_signal: signal.Signals, user: str | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is ready. At the end it gets `stop_signal`, and SIGKILL if it does not end in time."""
    with log.open("wb") as log_file:
        # A session of its own: Ctrl-C is for this process, which then ends its servers in order.
        process = subprocess.Popen(command, user=user, cwd=log.parent, stdout=log_file, stderr=log_file, start_new_session=True)
    try:
        deadline = time.monotonic() + STARTS_IN_S
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DidNotStart("the end of its log:\n" + log.read_text(errors="replace")[-LAST_CHARACTERS:])
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(stop_signal)
        try:
            process.wait(ENDS_IN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _temporary_folder(prefix: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _postgres() -> str | DidNotStart | None:
    local_url = f"postgresql://{getpass.getuser()}@127.0.0.1:5432/postgres"
    url = next((url for url in (os.environ.get(POSTGRES_VARIABLE), local_url) if url and _postgres_answers(url)), None)
    binaries = postgres_binaries()
    return (
        url if url or binaries is None else _start_until_exit(lambda opened: opened.enter_context(private_postgres(binaries))[0])
    )


@cache
def _redis() -> str | DidNotStart | None:
    local_url = "redis://127.0.0.1:6379/0"
    url = next((url for url in (os.environ.get(REDIS_VARIABLE), local_url) if url and _redis_answers(url)), None)
    binary = shutil.which("redis-server")
    return url if url or binary is None else _start_until_exit(lambda opened: opened.enter_context(private_redis(binary))[0])


def _start_until_exit(start: Callable[[ExitStack], str]) -> str | DidNotStart:
    """The URL of a server that ends with this process, or the reason why there is none."""
    with ExitStack() as stack:
        try:
            url = start(stack)
        except (OSError, subprocess.SubprocessError, DidNotStart) as error:
            return DidNotStart(f"a private server did not start; {error}")
        atexit.register(stack.pop_all().close)
        return url


def _url_or_raise(result: str | DidNotStart | None) -> str | None:
    if isinstance(result, DidNotStart):
        raise DidNotStart(*result.args)
    return result


def _postgres_answers(url: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            row = connection.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
            return bool(row and row[0])
    except psycopg.Error:
        return False


def _redis_answers(url: str) -> bool:
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
