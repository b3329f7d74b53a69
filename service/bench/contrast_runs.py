"""The papers' contrasts, and one of the methods, on one model in this process. Each case is trained, measured by the field's
metrics and written.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from service.bench import plots
from service.bench.bench_model import BenchModel, open_model, to_items
from service.bench.contrast_cases import PARTS, Case
from service.bench.plots import Line, Panel
from service.bench.records import load_records
from service.bench.results import write, write_csv
from service.bench.shard_curves import SHARDS, run_shards
from service.editors.protocol import Hooks
from service.editors.registry import find_method_of
from service.lm.overlay import EMPTY

SHARD_PART = "shards"
Row = dict[str, Any]


def run_contrasts(
    out: Path, file: Path | None, parts: Sequence[str], *, n: int, skip: int = 0, model: str, say: Callable[[str], None]
) -> None:
    """Run parts and leave `contrast_<part>.json`, `.csv` and `.svg` in `out`.

    Raises Refused for edits that cannot be read or are too few. `numbers` needs four times as many.
    """
    records = load_records(file, n=4 * n if "numbers" in parts else n, skip=skip)
    bench_model = open_model(model, records)
    for part in parts:
        say(f"-- {part}")
        rows: list[Row] = []
        for row in (
            run_shards(bench_model, n) if part == SHARD_PART else run_cases(bench_model, PARTS[part](n, bench_model.base.anatomy))
        ):
            rows.append(row)
            write(out, f"contrast_{part}", {"edits": n, "skip": skip, "rows": rows}, device=str(bench_model.base.device))
            say("   " + ", ".join(f"{name} {_short(value)}" for name, value in row.items() if value is not None))
        write_csv(out / f"contrast_{part}.csv", rows)
        if not plots.draw(out / f"contrast_{part}.svg", build_panels(part, rows)):
            say(plots.MISSING)


def run_cases(bench_model: BenchModel, cases: Sequence[Case]) -> Iterator[Row]:
    """Train and measure one case after another."""
    for case in cases:
        records = bench_model.records[: case.edits]
        started_at = time.perf_counter()
        editor = find_method_of(type(case.settings)).open_editor(bench_model.editor_context, case.settings)
        result = editor.fit(to_items(records), EMPTY, seed=0, hooks=Hooks())
        seconds = time.perf_counter() - started_at
        yield {
            "case": case.name,
            "line": case.line,
            "x": case.x,
            "edits": case.edits,
            **flatten_scores(bench_model.score(result.overlay, records)),
            "epochs": max(int(report["epochs"]) for report in result.reports.values()),
            "seconds": seconds,
        }


def build_panels(part: str, rows: Sequence[Row]) -> list[Panel]:
    """The panels of a part's rows."""
    return _shard_panels(rows) if part == SHARD_PART else _case_panels(part, rows)


def flatten_scores(scores: dict[str, Any]) -> Row:
    """Scores as one row: by exact match of the whole greedy answer, and by teacher-forced tokens, which flatter."""
    greedy, tokens = scores["greedy"], scores["tokens"]
    return {
        "reliability": greedy["reliability"]["score"],
        "reliability_tokens": tokens["reliability"]["score"],
        "generality": greedy["generality"]["untrained"]["score"],
        "generality_tokens": tokens["generality"]["untrained"]["score"],
        "locality_inside": greedy["locality"]["inside"]["score"],
        "locality_outside": greedy["locality"]["outside"]["score"],
        "locality": greedy["locality"]["score"],
        "locality_tokens": tokens["locality"]["score"],
        "capability": scores["capability"]["ratio"],
    }


def _case_panels(part: str, rows: Sequence[Row]) -> list[Panel]:
    """Curves where the cases have an x; else each case has its number on the x axis."""
    has_x = any(row["x"] is not None for row in rows)
    label = {"batches": "edits a step", "numbers": "edits"}.get(part, "case, in the table's order")
    panels = []
    for measure in ("reliability", "generality", "locality", "capability"):
        lines = []
        for name in dict.fromkeys(row["line"] for row in rows):
            line_rows = [(number, row) for number, row in enumerate(rows, 1) if row["line"] == name]
            x = [float(row["x"]) if has_x else float(number) for number, row in line_rows]
            lines.append(Line(name.replace("`", ""), x, [row[measure] for _, row in line_rows]))
        panels.append(Panel(measure, label, "share", lines, share=measure != "capability", log_x=has_x))
    return panels


def _shard_panels(rows: Sequence[Row]) -> list[Panel]:
    labels = {"depth-first": "shards trained", "breadth-first": "epochs"}
    panels = []
    for order, label in labels.items():
        order_rows = [row for row in rows if row["order"] == order]
        names = [f"shard_{number}" for number in range(1, SHARDS + 1)]
        lines = [
            Line(name.replace("_", " "), [float(row["at"]) for row in order_rows], [row.get(name) for row in order_rows])
            for name in names
        ]
        panels.append(Panel(order, label, "reliability", lines))
    return panels


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
