"""A database that does not answer for fifty seconds under load: Postgres stopped, or a SQLite file locked."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from benchmarks.hostile.clients import ask_edits, ask_generate, ask_ready, post_edit, run_clients, start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools
from benchmarks.private_servers import freeze, postgres_binaries, private_postgres, private_redis
from benchmarks.servers import ServerProcess

SILENT_S = 50.0
RECOVERY_S = 30.0
QUESTIONS = {"post": (60, post_edit), "ready": (2, ask_ready), "generate": (4, ask_generate), "edits": (4, ask_edits)}


def frozen_postgres(tools: AttackTools) -> AttackResult:
    """SIGSTOP of all of Postgres for fifty seconds."""
    binaries = postgres_binaries()
    if binaries is None:
        return AttackResult(True, "not made: there is no initdb here")
    with private_postgres(binaries) as (url, process), tools.server(database_url=url) as server:
        return _run_silence(tools, server, lambda: freeze(process), may_write=False)


def locked_sqlite(tools: AttackTools) -> AttackResult:
    """BEGIN IMMEDIATE by another process, held for fifty seconds."""
    with tools.server() as server:

        @contextmanager
        def lock() -> Iterator[None]:
            connection = sqlite3.connect(server.folder / "errata.db", isolation_level=None, timeout=20, check_same_thread=False)
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield
            finally:
                connection.close()

        return _run_silence(tools, server, lock, may_write=False)


def frozen_redis(tools: AttackTools) -> AttackResult:
    """SIGSTOP of Redis for fifty seconds. Redis only carries hints, so no request may be refused or slow."""
    binary = shutil.which("redis-server")
    if binary is None:
        return AttackResult(True, "not made: there is no redis-server here")
    with private_redis(binary) as (url, process), tools.server(redis_url=url) as server:
        return _run_silence(tools, server, lambda: freeze(process), may_write=True)


def _run_silence(tools: AttackTools, server: ServerProcess, silence: Callable[[], object], *, may_write: bool) -> AttackResult:
    with start_raw(server) as client:
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url), run_clients(url, QUESTIONS) as counts:
            time.sleep(2)
            with silence():  # type: ignore[attr-defined]
                time.sleep(SILENT_S)
            recovery_s = _wait_for_recovery(client)
            time.sleep(1)
        kept_count = _count_edits(client)
        allowed = {"post": {200, 202} if may_write else {200, 202, 503}, "generate": {200}}
        allowed |= {"ready": {200, 503}, "edits": {200, 503}}
        acknowledged_count = counts.statuses["post"][202] + counts.statuses["post"][200]
        is_held = all(set(statuses) <= allowed[kind] for kind, statuses in counts.statuses.items())
        is_held = (
            is_held
            and recovery_s is not None
            and kept_count >= acknowledged_count
            and counts.worst_s["ready"] < 5
            and counts.worst_s["post"] < 20
        )
        recovery = "never" if recovery_s is None else f"after {recovery_s:.1f} s"
        return AttackResult(
            is_held, f"{counts.summarise()}; healed {recovery}; {acknowledged_count} acknowledged, {kept_count} kept"
        )


def _wait_for_recovery(client: httpx.Client) -> float | None:
    """Seconds until an edit is accepted and the server is ready; None if that does not happen in time."""
    started_at = time.monotonic()
    while time.monotonic() - started_at < RECOVERY_S:
        if post_edit(client, 10**9).status_code in (200, 202) and client.get("/health/ready").status_code == 200:
            return time.monotonic() - started_at
        time.sleep(0.1)
    return None


def _count_edits(client: httpx.Client) -> int:
    """The number of edits of stones, without the one of `_wait_for_recovery`."""
    count, cursor = 0, None
    while True:
        params = {"limit": 200} | ({} if cursor is None else {"cursor": cursor})
        page = client.get("/edits", params=params).json()
        count += sum(edit["prompt"].startswith("The colour of stone") for edit in page["items"])
        cursor = page["next"]
        if cursor is None:
            return count - 1


ATTACKS = (
    Attack("Postgres stopped for 50 s under load", frozen_postgres),
    Attack("SQLite locked by another process for 50 s", locked_sqlite),
    Attack("Redis stopped for 50 s under load", frozen_redis),
)
