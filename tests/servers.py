"""Real servers for tests: those named by the environment, else those of this machine, else private ones started from binaries.

Each test gets a Postgres database, or a Redis key prefix, of its own, which is dropped afterwards. Where there is no server and
no binary, the tests that need one are skipped and say so.
"""

import atexit
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

POSTGRES_VARIABLE = "TEST_POSTGRES_URL"  # e.g. postgresql://user@host:5432/postgres; the user must be allowed to create databases
REDIS_VARIABLE = "TEST_REDIS_URL"
STARTS_IN_S = 20.0


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of a new database, dropped at the end. Skips the test if there is no Postgres."""
    import psycopg
    from psycopg import sql

    server = postgres_server()
    if server is None:
        pytest.skip(f"no Postgres: none in {POSTGRES_VARIABLE}, none on 127.0.0.1:5432, and no initdb to start one")
    name = f"errata_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.rsplit("/", 1)[0] + f"/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def redis_prefix() -> Iterator[tuple[str, str]]:
    """The URL of a Redis and a key prefix of one's own, deleted at the end. Skips the test if there is no Redis."""
    from redis import Redis

    url = redis_server()
    if url is None:
        pytest.skip(f"no Redis: none in {REDIS_VARIABLE}, none on 127.0.0.1:6379, and no redis-server to start one")
    prefix = f"errata-test-{uuid.uuid4().hex[:12]}"
    try:
        yield url, prefix
    finally:
        with Redis.from_url(url) as client:
            for key in client.scan_iter(f"{prefix}*"):
                client.delete(key)


@lru_cache(maxsize=1)
def postgres_server() -> str | None:
    """The URL of a server's maintenance database."""
    user = getpass.getuser()
    candidates = [os.environ.get(POSTGRES_VARIABLE), f"postgresql://{user}@127.0.0.1:5432/postgres"]
    found = next((url for url in candidates if url and _postgres_answers(url)), None)
    return found or _private_postgres()


@lru_cache(maxsize=1)
def redis_server() -> str | None:
    """The URL of a server."""
    candidates = [os.environ.get(REDIS_VARIABLE), "redis://127.0.0.1:6379/0"]
    found = next((url for url in candidates if url and _redis_answers(url)), None)
    return found or _private_redis()


@contextmanager
def private_redis() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Redis that the test may stop. Skips the test if there is no binary."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server binary to start a Redis of one's own")
    port, folder = free_port(), tempfile.mkdtemp(prefix="errata-redis-")
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        _until(lambda: _redis_answers(url))
        yield url, process
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def _private_postgres() -> str | None:
    """Start a server that ends with this process. As root it runs as an unprivileged user, because Postgres refuses root."""
    binaries = _postgres_binaries()
    if binaries is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="errata-postgres-"))
    user = _unprivileged() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    port, data = free_port(), folder / "data"
    command = [str(binaries / "initdb"), "-D", str(data), "-U", "errata", "-A", "trust", "-N"]
    subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    process = subprocess.Popen(
        [str(binaries / "postgres"), "-D", str(data), *options], user=user, cwd=folder, stderr=subprocess.DEVNULL
    )
    atexit.register(_end, process, folder)
    url = f"postgresql://errata@127.0.0.1:{port}/postgres"
    _until(lambda: _postgres_answers(url))
    return url


def _private_redis() -> str | None:
    if shutil.which("redis-server") is None:
        return None
    server = private_redis()
    url, _ = server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return url


def _postgres_binaries() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


def _until(answers: object) -> None:
    until = time.monotonic() + STARTS_IN_S
    while not answers():  # type: ignore[operator]
        if time.monotonic() > until:
            raise TimeoutError("a private server did not start")
        time.sleep(0.05)
