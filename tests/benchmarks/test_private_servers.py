"""The servers that tests and benchmarks start for themselves."""

from pathlib import Path

import psycopg
import pytest

from benchmarks.private_servers import DidNotStart, postgres_binaries, private_postgres, private_redis


def test_a_private_postgres_ends_in_order_with_an_open_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no initdb to start a Postgres")
    monkeypatch.setattr("benchmarks.private_servers.ENDS_IN_S", 60.0)  # it would be killed after this

    with private_postgres(binaries) as (url, process):
        session = psycopg.connect(url)

    assert process.returncode == 0
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()


def test_a_private_server_that_does_not_start_reports_its_log(tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    binary.chmod(0o755)

    with pytest.raises(DidNotStart, match="no memory"), private_redis(str(binary)):
        pass
