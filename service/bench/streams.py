"""Streams of several contenders: run one after another, written at every mark, joined into one table and one plot."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.bench import plots
from service.bench.asking import Asking
from service.bench.contenders import CONTENDERS, TRAINED_REPHRASES
from service.bench.records import records_of, teach
from service.bench.results import write, write_csv
from service.bench.stream import Mark, Stream, server_of
from service.bench.tables import Row, panels_of, rows_of, short_of_aims


def run_streams(
    out: Path,
    file: Path | None,
    contenders: Sequence[str],
    *,
    n: int,
    every: int,
    skip: int = 0,
    model: str = "atlas",
    tasks: Path | None = None,
    say: Callable[[str], None],
) -> list[str]:
    """Run the contenders and leave `stream_<contender>.json`, `stream.csv` and `stream.svg` in `out`; tells where the
    default falls short of its aims.

    The table and the plot hold whatever contenders the folder holds. Raises Refused for edits that cannot be read or are too few,
    Unavailable where a server does not start.
    """
    records = records_of(file, n=n, skip=skip)
    short: list[str] = []
    for name in contenders:
        say(f"-- {name}")
        marks: list[Mark] = []
        with server_of(name, model, every=every, tasks=tasks) as client:
            taught = [teach(record, TRAINED_REPHRASES.get(name, 0)) for record in records]
            stream = Stream(Asking(client), taught, every, capability=model == "atlas" or tasks is not None)
            device = str((stream.asking.send("GET", "/model") or {}).get("device", "cpu"))
            for mark in stream.run():
                marks.append(mark)
                figures = {"contender": name, "settings": CONTENDERS[name], "edits": n, "every": every, "skip": skip}
                write(out, f"stream_{name}", {**figures, "marks": marks}, device=device)
                say(line_of(rows_of(name, [mark])[0]))
        join(out, say)
        if name == "default":
            short = short_of_aims(rows_of(name, marks))
    return short


def join(out: Path, say: Callable[[str], None]) -> None:
    """Write the table and the plot of all streams in the folder."""
    rows = joined_rows(out)
    write_csv(out / "stream.csv", rows)
    if not plots.draw(out / "stream.svg", panels_of(rows)):
        say(plots.MISSING)


def joined_rows(out: Path) -> list[Row]:
    """Rows of all streams that a folder holds, in the order in which contenders are named."""
    rows: list[Row] = []
    for name in CONTENDERS:
        path = out / f"stream_{name}.json"
        if path.exists():
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rows += rows_of(name, content["figures"]["marks"])
    return rows


def line_of(row: Row) -> str:
    """A mark in one line, for whoever watches."""
    shown = ("retention", "generality", "locality_inside", "locality_outside", "capability", "latency_p50_s")
    figures = ", ".join(f"{name.replace('_', ' ')} {'–' if row[name] is None else format(row[name], '.2f')}" for name in shown)
    return f"   {row['edits']} edits, {row['seconds']:.0f} s: {figures}, window {row['window']}, failed {row['failed_requests']}"
