"""Streams of several contenders, one after another. Results are written at every mark, into one table and one plot."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.bench import plots
from service.bench.contenders import CONTENDERS, TRAINED_REPHRASES
from service.bench.counting_client import CountingClient
from service.bench.new_server import run_new_server
from service.bench.records import load_records, open_rephrases
from service.bench.results import write, write_csv
from service.bench.stream import Mark, Stream
from service.bench.stream_tables import Row, build_panels, build_rows, find_shortfalls

BACK_TO_BACK, PACED = "stream", "stream_paced"  # prefixes of result files


def run_streams(
    out: Path,
    file: Path | None,
    contenders: Sequence[str],
    *,
    n: int,
    every: int,
    pace_s: float = 0.0,
    skip: int = 0,
    model: str = "atlas",
    tasks: Path | None = None,
    say: Callable[[str], None],
) -> list[str]:
    """Run the contenders and write `stream_<contender>.json`, `stream.csv` and `stream.svg` to `out`; with `pace_s`,
    `stream_paced_<contender>.json` and so on. Returns a sentence for each aim that the default falls short of.

    The table and the plot have all contenders of the folder. Raises Refused for edits that cannot be read or are too few, and
    Unavailable where a server does not start.
    """
    records = load_records(file, n=n, skip=skip)
    kind = PACED if pace_s else BACK_TO_BACK
    shortfalls: list[str] = []
    environment = {} if tasks is None else {"ERRATA_CAPABILITY_FILE": str(tasks.resolve())}
    for name in contenders:
        say(f"-- {name}")
        marks: list[Mark] = []
        with run_new_server(name, model, every=every, environment=environment) as server:
            stream_records = [open_rephrases(record, TRAINED_REPHRASES.get(name, 0)) for record in records]
            stream = Stream(
                CountingClient(server.client), stream_records, every, pace_s, capability=model == "atlas" or tasks is not None
            )
            served = stream.client.attempt(lambda errata: errata.get_model())
            device = "cpu" if served is None else served["device"]
            for mark in stream.run():
                marks.append(mark)
                figures = {"contender": name, "settings": CONTENDERS[name], "edits": n, "every": every, "pace_s": pace_s}
                write(out, f"{kind}_{name}", {**figures, "skip": skip, "marks": marks}, device=device)
                say(format_mark(build_rows(name, [mark])[0]))
        write_comparison(out, say, kind)
        if name == "default":
            shortfalls = find_shortfalls(build_rows(name, marks))
    return shortfalls


def write_comparison(out: Path, say: Callable[[str], None], kind: str = BACK_TO_BACK) -> None:
    """Write the table and the plot of all streams of a kind in the folder."""
    rows = load_rows(out, kind)
    write_csv(out / f"{kind}.csv", rows)
    if not plots.draw(out / f"{kind}.svg", build_panels(rows)):
        say(plots.MISSING)


def load_rows(out: Path, kind: str = BACK_TO_BACK) -> list[Row]:
    """The rows of all streams of a kind in a folder, in the order of CONTENDERS."""
    rows: list[Row] = []
    for name in CONTENDERS:
        path = out / f"{kind}_{name}.json"
        if path.exists():
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rows += build_rows(name, content["figures"]["marks"])
    return rows


def format_mark(row: Row) -> str:
    """A mark as one line of progress."""
    measures = ("retention", "generality", "locality_inside", "locality_outside", "capability", "latency_p50_s")
    figures = ", ".join(f"{name.replace('_', ' ')} {'–' if row[name] is None else format(row[name], '.2f')}" for name in measures)
    return f"   {row['edits']} edits, {row['seconds']:.0f} s: {figures}, window {row['window']}, failed {row['failed_requests']}"
