"""Latency from POST to applied over HTTP: with an empty window, with 25 edits in the window, and with 64 edits waiting.

Every timed edit is rolled back before the next one, so that all have the same window; rollbacks are timed as well. Settings put
retrains off, so that the times are those of BaFT, the store and the server.
"""

import time

from benchmarks.command import build_parser, parse_options, percentile, write
from benchmarks.inputs import build_body
from benchmarks.servers import Zygote, run_server
from service.atlas import benchmark
from service.client.errata_client import ErrataClient
from service.evaluation.records import Record, read_records

WINDOW = 25
TOGETHER = 64
NO_RETRAINS = {"soft": 1_000, "hard": 1_000}


def main() -> None:
    """The command."""
    arguments = parse_options(build_parser(__doc__, edits=20))
    records = read_records(arguments.records or benchmark.FILE)[: WINDOW + TOGETHER + arguments.edits]
    timed_records, window, together = records[: arguments.edits], records[arguments.edits :][:WINDOW], records[-TOGETHER:]
    zygote = Zygote()
    try:
        with run_server(zygote, model=arguments.model, window=NO_RETRAINS) as process, process.start() as client:
            empty, back_from_one = time_edits(client, timed_records, version=0)
            full = fill_window(client, window)
            at_window, back_from_window = time_edits(client, timed_records, version=full)
            client.rollback(0, "benchmark")
            throughput = post_together(client, together)
    finally:
        zygote.close()
    figures = {
        "edits": len(timed_records),
        "empty_window": _spread(empty),
        f"window_of_{WINDOW}": _spread(at_window),
        "waiting_together": {"edits": TOGETHER, **throughput},
        "rollback_ms": {
            "p50": 1000 * percentile(back_from_one + back_from_window, 0.5),
            "p99": 1000 * percentile(back_from_one + back_from_window, 0.99),
            "n": len(back_from_one + back_from_window),
        },
    }
    write(arguments.results, "latency", figures)


def time_edits(client: ErrataClient, records: list[Record], *, version: int) -> tuple[list[float], list[float]]:
    """Seconds of each edit, and of the rollback to `version` after it. The first edit warms the server up and does not count."""
    edit_seconds, rollback_seconds = [], []
    for record in [records[0], *records]:
        started_at = time.perf_counter()
        edit = client.post_edit(build_body(record), wait_s=60)
        edit_seconds.append(time.perf_counter() - started_at)
        if edit["status"] != "applied":
            print(f"   one edit is {edit['status']}", flush=True)
        started_at = time.perf_counter()
        client.rollback(version, "benchmark")
        rollback_seconds.append(time.perf_counter() - started_at)
    return edit_seconds[1:], rollback_seconds[1:]


def fill_window(client: ErrataClient, records: list[Record]) -> int:
    """Apply `records` one after another. Returns the number of the version with all of them."""
    for record in records:
        client.post_edit(build_body(record), wait_s=60)
    return client.get_version("head")["number"]


def post_together(client: ErrataClient, records: list[Record]) -> dict[str, float | int]:
    """Edits a second when all are posted together, from the first sent byte until no edit waits."""
    started_at = time.perf_counter()
    batch = client.post_edits([build_body(record) for record in records])
    while client.get_model()["waiting"]:
        time.sleep(0.02)
    seconds = time.perf_counter() - started_at
    statuses = [client.get_edit(edit["id"])["status"] for edit in batch["items"]]
    return {"seconds": seconds, "edits_a_second": len(records) / seconds, "applied": statuses.count("applied")}


def _spread(seconds: list[float]) -> dict[str, float | int]:
    return {"p50_s": percentile(seconds, 0.5), "p90_s": percentile(seconds, 0.9), "max_s": max(seconds), "n": len(seconds)}


if __name__ == "__main__":
    main()
