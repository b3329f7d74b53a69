"""A database that does not answer for fifty seconds while clients go on asking: Postgres stopped, or a SQLite file locked."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from benchmarks.hostile.crowd import ask_edits, ask_generate, ask_ready, post_edit, run_clients
from benchmarks.hostile.ground import Attack, AttackResult, AttackTools
from benchmarks.private_servers import frozen, postgres_binaries, private_postgres, private_redis
from benchmarks.servers import ServerProcess

SILENT_S = 50.0
HEALS_S = 30.0
QUESTIONS = {"post": (60, post_edit), "ready": (2, ask_ready), "generate": (4, ask_generate), "edits": (4, ask_edits)}


def frozen_postgres(ground: AttackTools) -> AttackResult:
    """SIGSTOP of all of Postgres for fifty seconds."""
    binaries = postgres_binaries()
    if binaries is None:
        return AttackResult(True, "not made: there is no initdb here")
    with private_postgres(binaries) as (url, process), ground.server(database_url=url) as server:
        return _silent(ground, server, lambda: frozen(process), may_write=False)


def locked_sqlite(ground: AttackTools) -> AttackResult:
    """BEGIN IMMEDIATE by another process, held for fifty seconds."""
    with ground.server() as server:

        @contextmanager
        def locked() -> Iterator[None]:
            other = sqlite3.connect(server.folder / "errata.db", isolation_level=None, timeout=20, check_same_thread=False)
            try:
                other.execute("BEGIN IMMEDIATE")
                yield
            finally:
                other.close()

        return _silent(ground, server, locked, may_write=False)


def frozen_redis(ground: AttackTools) -> AttackResult:
    """SIGSTOP of Redis for fifty seconds: it only carries hints, so nothing may be refused or slow for its sake."""
    binary = shutil.which("redis-server")
    if binary is None:
        return AttackResult(True, "not made: there is no redis-server here")
    with private_redis(binary) as (url, process), ground.server(redis_url=url) as server:
        return _silent(ground, server, lambda: frozen(process), may_write=True)


def _silent(ground: AttackTools, server: ServerProcess, silence: Callable[[], object], *, may_write: bool) -> AttackResult:
    with server.start() as client:
        url = str(client.base_url).rstrip("/")
        with ground.pulse(url), run_clients(url, QUESTIONS) as found:
            time.sleep(2)
            with silence():  # type: ignore[attr-defined]
                time.sleep(SILENT_S)
            healed_s = _heals(client)
            time.sleep(1)
        kept = _kept(client)
        allowed = {"post": {200, 202} if may_write else {200, 202, 503}, "generate": {200}}
        allowed |= {"ready": {200, 503}, "edits": {200, 503}}
        acknowledged = found.statuses["post"][202] + found.statuses["post"][200]
        held = all(set(statuses) <= allowed[kind] for kind, statuses in found.statuses.items())
        held = (
            held and healed_s is not None and kept >= acknowledged and found.worst_s["ready"] < 5 and found.worst_s["post"] < 20
        )
        healed = "never" if healed_s is None else f"after {healed_s:.1f} s"
        return AttackResult(held, f"{found.said()}; healed {healed}; {acknowledged} acknowledged, {kept} kept")


def _heals(client: httpx.Client) -> float | None:
    """Seconds until an edit is taken and the server is ready again."""
    began = time.monotonic()
    while time.monotonic() - began < HEALS_S:
        if post_edit(client, 10**9).status_code in (200, 202) and client.get("/health/ready").status_code == 200:
            return time.monotonic() - began
        time.sleep(0.1)
    return None


def _kept(client: httpx.Client) -> int:
    """How many of the stones' edits there are; the one of `_heals` aside."""
    counted, cursor = 0, None
    while True:
        params = {"limit": 200} | ({} if cursor is None else {"cursor": cursor})
        page = client.get("/edits", params=params).json()
        counted += sum(one["prompt"].startswith("The colour of stone") for one in page["items"])
        cursor = page["next"]
        if cursor is None:
            return counted - 1


ATTACKS = (
    Attack("Postgres stopped for 50 s under load", frozen_postgres),
    Attack("SQLite locked by another process for 50 s", locked_sqlite),
    Attack("Redis stopped for 50 s under load", frozen_redis),
)
