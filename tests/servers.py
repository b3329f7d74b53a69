"""What a test is lent: a Postgres database or a Redis key prefix of its own, gone afterwards; or a Redis that it may stop. Where
there is no server and no binary to start one, the tests that need it are skipped and say so.
"""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import private_servers
from benchmarks.private_servers import POSTGRES_VARIABLE, REDIS_VARIABLE, new_database, postgres_server, redis_server


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of a new database, dropped at the end."""
    server = postgres_server()
    if server is None:
        pytest.skip(f"no Postgres: none in {POSTGRES_VARIABLE}, none on 127.0.0.1:5432, and no initdb to start one")
    with new_database(server) as url:
        yield url


@contextmanager
def redis_prefix() -> Iterator[tuple[str, str]]:
    """The URL of a Redis and a key prefix, whose keys are deleted at the end."""
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


@contextmanager
def private_postgres() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The URL of an empty database of a new Postgres, and its process."""
    binaries = private_servers.postgres_binaries()
    if binaries is None:
        pytest.skip("no initdb to start a Postgres of one's own")
    with private_servers.private_postgres(binaries) as server:
        yield server


@contextmanager
def private_redis(port: int | None = None) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The URL of a new, empty Redis, and its process."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server to start a Redis of one's own")
    with private_servers.private_redis(binary, port) as server:
        yield server
