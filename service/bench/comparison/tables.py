"""The comparison as rows of a table and as panels of a plot. Knows no server."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.bench.comparison.contenders import COMPARED
from service.bench.plots import Line, Panel

Row = dict[str, Any]
MEASURES = ("kept", "wordings", "near", "same subject", "mention", "far", "portability")
COSTS = ("seconds_an_edit", "live_p50_s", "ms_an_answer", "peak_mb", "cpu_s")
OTHERS = ("live", "in_the_prompt", "shared_prefix_s", "retrains")
_DRAWN = {"seconds_an_edit": "seconds an edit", "ms_an_answer": "milliseconds an answer", "peak_mb": "peak memory, MB"}


def build_rows(contender: str, marks: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a mark."""
    return [_row(contender, mark) for mark in marks]


def _row(contender: str, mark: Mapping[str, Any]) -> Row:
    row: Row = {"contender": contender, "edits": mark["edits"], "questions": mark["questions"]}
    for measure in MEASURES:
        figure = mark[measure] or {}
        row |= {measure: figure.get("score"), f"{measure} se": figure.get("se")}
    return row | {name: mark.get(name) for name in (*COSTS, *OTHERS)}


def build_panels(rows: Sequence[Row]) -> list[Panel]:
    """Shares and costs over the number of edits, one line a contender."""
    names = list(dict.fromkeys(row["contender"] for row in rows))

    def lines(measure: str) -> list[Line]:
        own = {name: [row for row in rows if row["contender"] == name] for name in names}
        return [
            Line(COMPARED[name].label, [row["edits"] for row in own[name]], [row[measure] for row in own[name]]) for name in names
        ]

    measured = [measure for measure in MEASURES if any(row[measure] is not None for row in rows)]
    shares = [Panel(measure, "edits", "share", lines(measure), log_x=True) for measure in measured]
    return shares + [Panel(title, "edits", title, lines(name), share=False, log_x=True) for name, title in _DRAWN.items()]


def format_row(row: Row) -> str:
    """A mark as one line of progress."""
    shown = (*MEASURES[:-1], "seconds_an_edit", "ms_an_answer", "peak_mb", "cpu_s")
    figures = ", ".join(f"{name.replace('_', ' ')} {'–' if row[name] is None else format(row[name], '.3g')}" for name in shown)
    return f"   {row['edits']} edits, {row['questions']} questions: {figures}"
