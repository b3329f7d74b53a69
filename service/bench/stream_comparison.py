"""Streams of several contenders: run one after another, written at every mark, joined into one table and one plot."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.bench import plots
from service.bench.contenders import CONTENDERS, TRAINED_REPHRASES
from service.bench.counting_client import Asking
from service.bench.one_stream import Mark, Stream, server_of
from service.bench.records import records_of, teach
from service.bench.results import write, write_csv
from service.bench.stream_tables import Row, panels_of, rows_of, short_of_aims

BACK_TO_BACK, PACED = "stream", "stream_paced"  # how result files begin


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
    """Run the contenders and leave `stream_<contender>.json`, `stream.csv` and `stream.svg` in `out`, or, where edits come by the
    clock, `stream_paced_<contender>.json` and so on; tells where the default falls short of its aims.

    The table and the plot hold whatever contenders the folder holds. Raises Refused for edits that cannot be read or are too few,
    Unavailable where a server does not start.
    """
    records = records_of(file, n=n, skip=skip)
    kind = PACED if pace_s else BACK_TO_BACK
    short: list[str] = []
    for name in contenders:
        say(f"-- {name}")
        marks: list[Mark] = []
        with server_of(name, model, every=every, tasks=tasks) as client:
            taught = [teach(record, TRAINED_REPHRASES.get(name, 0)) for record in records]
            stream = Stream(Asking(client), taught, every, pace_s, capability=model == "atlas" or tasks is not None)
            device = str((stream.asking.send("GET", "/model") or {}).get("device", "cpu"))
            for mark in stream.run():
                marks.append(mark)
                figures = {"contender": name, "settings": CONTENDERS[name], "edits": n, "every": every, "pace_s": pace_s}
                write(out, f"{kind}_{name}", {**figures, "skip": skip, "marks": marks}, device=device)
                say(line_of(rows_of(name, [mark])[0]))
        join(out, say, kind)
        if name == "default":
            short = short_of_aims(rows_of(name, marks))
    return short


def join(out: Path, say: Callable[[str], None], kind: str = BACK_TO_BACK) -> None:
    """Write the table and the plot of all streams of a kind in the folder."""
    rows = joined_rows(out, kind)
    write_csv(out / f"{kind}.csv", rows)
    if not plots.draw(out / f"{kind}.svg", panels_of(rows)):
        say(plots.MISSING)


def joined_rows(out: Path, kind: str = BACK_TO_BACK) -> list[Row]:
    """Rows of all streams of a kind that a folder holds, in the order in which contenders are named."""
    rows: list[Row] = []
    for name in CONTENDERS:
        path = out / f"{kind}_{name}.json"
        if path.exists():
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rows += rows_of(name, content["figures"]["marks"])
    return rows


def line_of(row: Row) -> str:
    """A mark in one line, for whoever watches."""
    shown = ("retention", "generality", "locality_inside", "locality_outside", "capability", "latency_p50_s")
    figures = ", ".join(f"{name.replace('_', ' ')} {'–' if row[name] is None else format(row[name], '.2f')}" for name in shown)
    return f"   {row['edits']} edits, {row['seconds']:.0f} s: {figures}, window {row['window']}, failed {row['failed_requests']}"
