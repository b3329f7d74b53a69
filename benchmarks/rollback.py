"""The time of a rollback over HTTP, to and fro between the base model and a window of edits, and the next answer."""

import time

from benchmarks.command import build_parser, parse_options, percentile, write
from benchmarks.latency import NO_RETRAINS, fill_window
from benchmarks.servers import Zygote, run_server
from service.atlas import benchmark
from service.client.errata_client import ErrataClient
from service.evaluation.records import Record, read_records

TURNS = 100


def main() -> None:
    """The command."""
    arguments = parse_options(build_parser(__doc__, edits=25))
    records = read_records(arguments.records or benchmark.FILE)[: arguments.edits]
    zygote = Zygote()
    try:
        with run_server(zygote, model=arguments.model, window=NO_RETRAINS) as process, process.start() as client:
            fill_window(client, records)
            ms, correct_count = roll_to_and_fro(client, records[0])
    finally:
        zygote.close()
    figures = {
        "edits": len(records),
        "rollbacks": len(ms),
        "p50_ms": percentile(ms, 0.5),
        "p99_ms": percentile(ms, 0.99),
        "max_ms": max(ms),
        "next_answer_is_the_restored_one": correct_count / len(ms),
    }
    write(arguments.results, "rollback", figures)


def roll_to_and_fro(client: ErrataClient, record: Record) -> tuple[list[float], int]:
    """Milliseconds of each rollback, and how often the very next answer was that of the restored version."""
    edited_version, times, correct_count = client.get_version("head")["number"], [], 0
    answers = {version: _answer(client, record.prompt, version) for version in (0, edited_version)}
    for turn in range(TURNS):
        version = 0 if turn % 2 == 0 else edited_version
        started_at = time.perf_counter()
        client.rollback(version, "benchmark")
        times.append(1000 * (time.perf_counter() - started_at))
        correct_count += _answer(client, record.prompt, "head") == answers[version]
    return times, correct_count


def _answer(client: ErrataClient, prompt: str, version: int | str) -> str:
    return client.generate(prompt, version=version, max_new_tokens=16)["text"]


if __name__ == "__main__":
    main()
