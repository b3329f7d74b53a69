"""kill -9 at random moments of submitting, fitting, publishing, retraining and rolling back, on SQLite and on Postgres.

The real server process over real files is killed at named crash points of the lifecycle and at random times, restarted, and
checked. All kills are of the same store.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.command import build_parser, parse_options, write
from benchmarks.crash_trials import CrashTrials, KillMoment
from benchmarks.inputs import build_body
from benchmarks.private_servers import new_database, postgres_server
from benchmarks.servers import ServerProcess, Zygote, run_server
from service.atlas import benchmark
from service.client.shapes import EditInput
from service.evaluation.records import Record, read_records

NAMED_MOMENTS: tuple[KillMoment, ...] = (
    KillMoment("edits", "submit.before_commit:2"),
    KillMoment("edits", "submit.after_commit"),
    KillMoment("edits", "claim.after_commit:2"),
    KillMoment("edits", "fit.middle:2"),
    KillMoment("edits", "publish.after_save"),
    KillMoment("edits", "publish.before_commit:3"),
    KillMoment("edits", "publish.after_commit:2"),
    KillMoment("rollback", "rollback.before_commit"),
    KillMoment("rollback", "rollback.after_commit:2"),
    KillMoment("retrain", "retrain.middle"),
    KillMoment("retrain", "retrain.before_publish"),
)
TIMED_MOMENTS: tuple[KillMoment, ...] = (
    KillMoment("edits", within_s=3.0),
    KillMoment("rollback", within_s=4.0),
    KillMoment("retrain", within_s=12.0),
)


def main() -> None:
    """The command."""
    parser = build_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="on each database")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--databases", nargs="*", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    arguments = parse_options(parser)
    zygote = Zygote()
    figures: dict[str, Any] = {"seed": arguments.seed}
    try:
        for kind in arguments.databases:
            figures[kind] = run_kills(kind, zygote, arguments.model, arguments.records, arguments.kills, arguments.seed)
            write(arguments.results, "kill9", figures)
    finally:
        zygote.close()
    if any(figures[kind].get("faults") for kind in arguments.databases):
        raise SystemExit(1)


def run_kills(kind: str, zygote: Zygote, model: str, records: Path | None, kills: int, seed: int) -> dict[str, Any]:
    """All kills on one kind of database."""
    with contextlib.ExitStack() as stack:
        url: str | None = None
        if kind == "postgres":
            database = postgres_server()
            if database is None:
                return {"skipped": "no Postgres server and no binaries to start one"}
            url = stack.enter_context(new_database(database))
        process = stack.enter_context(run_server(zygote, model=model, database_url=url))
        crashes = CrashTrials(process, _bodies(read_records(records or benchmark.FILE)), engine_url(url, process), seed=seed)
        stack.callback(crashes.close)
        return _run_all(crashes, process, kills, seed)


def _bodies(records: Sequence[Record]) -> Iterator[EditInput]:
    """Endless edits of distinct facts: after the last record, the same records follow for another year."""
    for turn in count():
        for record in records:
            body = build_body(record)
            later = EditInput(prompt=f"In the year {2100 + turn}: {body['prompt']}", target=body["target"])
            yield later if turn else body


def choose_moments(kills: int, seed: int) -> Iterator[KillMoment]:
    """Named points and random times in turns, so that the first few kills have every kind of work."""
    rng = Random(seed)
    remaining = rng.sample(NAMED_MOMENTS, len(NAMED_MOMENTS))
    for number in range(kills):
        yield remaining.pop() if remaining and number % 2 == 0 else (TIMED_MOMENTS[number // 2 % len(TIMED_MOMENTS)])


def _run_all(crashes: CrashTrials, process: ServerProcess, kills: int, seed: int) -> dict[str, Any]:
    started_at, starts, faults = time.monotonic(), [], []
    for moment in choose_moments(kills, seed):
        new_faults = crashes.run_trial(moment)
        starts.append(process.start_s)
        faults += new_faults
        print(f"   kill {crashes.kills}: {moment}: {'; '.join(new_faults) or 'all well'}", flush=True)
    return {
        "kills": crashes.kills,
        "submissions": len(crashes.client_log.sent),
        "faults": faults,
        "live_edits_answered": crashes.answered / max(crashes.live, 1),
        "start_after_kill_s": {"p50": sorted(starts)[len(starts) // 2], "max": max(starts)},
        "seconds": time.monotonic() - started_at,
    }


def engine_url(url: str | None, process: ServerProcess) -> str:
    """The URL of a server's database for SQLAlchemy."""
    return (
        f"sqlite:///{process.folder / 'errata.db'}" if url is None else url.replace("postgresql://", "postgresql+psycopg://", 1)
    )


if __name__ == "__main__":
    main()
