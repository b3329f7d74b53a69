"""kill -9 at random moments of submitting, fitting, publishing, retraining and rolling back, on SQLite and on Postgres.

The real server process over real files is killed at every named point of the lifecycle and at random times, started again, and
examined; the same store goes through all kills.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.atlas import build_body
from benchmarks.crash import CrashTrials, KillMoment
from benchmarks.outcome import build_parser, parse_options, write
from benchmarks.private_servers import new_database, postgres_server
from benchmarks.servers import ServerProcess, Zygote, run_server
from service.atlas import benchmark
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
    chosen = parse_options(parser)
    zygote = Zygote()
    figures: dict[str, Any] = {"seed": chosen.seed}
    try:
        for kind in chosen.databases:
            figures[kind] = run_kills(kind, zygote, chosen.model, chosen.records, chosen.kills, chosen.seed)
            write(chosen.results, "kill9", figures)
    finally:
        zygote.close()
    if any(figures[kind].get("faults") for kind in chosen.databases):
        raise SystemExit(1)


def run_kills(kind: str, zygote: Zygote, model: str, records: Path | None, kills: int, seed: int) -> dict[str, Any]:
    """All kills on one kind of database."""
    with contextlib.ExitStack() as opened:
        url: str | None = None
        if kind == "postgres":
            database = postgres_server()
            if database is None:
                return {"skipped": "no Postgres server and no binaries to start one"}
            url = opened.enter_context(new_database(database))
        made = opened.enter_context(run_server(zygote, model=model, database_url=url))
        crashes = CrashTrials(made, _bodies(read_records(records or benchmark.FILE)), engine_url(url, made), seed=seed)
        opened.callback(crashes.close)
        return _all_kills(crashes, made, kills, seed)


def _bodies(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Edits without end, no two of one fact: when the records are used up, the same ones of other years."""
    for turn in count():
        for record in records:
            body = build_body(record)
            later = {"prompt": f"In the year {2100 + turn}: {body['prompt']}", "target": body["target"]}
            yield later if turn else body


def choose_moments(kills: int, seed: int) -> Iterator[KillMoment]:
    """Named points and random times, every kind of work among the first few."""
    rng = Random(seed)
    named = rng.sample(NAMED_MOMENTS, len(NAMED_MOMENTS))
    for at in range(kills):
        yield named.pop() if named and at % 2 == 0 else (TIMED_MOMENTS[at // 2 % len(TIMED_MOMENTS)])


def _all_kills(crashes: CrashTrials, made: ServerProcess, kills: int, seed: int) -> dict[str, Any]:
    began, starts, faults = time.monotonic(), [], []
    for moment in choose_moments(kills, seed):
        found = crashes.trial(moment)
        starts.append(made.start_s)
        faults += found
        print(f"   kill {crashes.kills}: {moment}: {'; '.join(found) or 'all well'}", flush=True)
    return {
        "kills": crashes.kills,
        "submissions": len(crashes.chronicle.sent),
        "faults": faults,
        "live_edits_answered": crashes.answered / max(crashes.live, 1),
        "start_after_kill_s": {"p50": sorted(starts)[len(starts) // 2], "max": max(starts)},
        "seconds": time.monotonic() - began,
    }


def engine_url(url: str | None, made: ServerProcess) -> str:
    """The database of a server, for a reader of its own."""
    return f"sqlite:///{made.folder / 'errata.db'}" if url is None else url.replace("postgresql://", "postgresql+psycopg://", 1)


if __name__ == "__main__":
    main()
