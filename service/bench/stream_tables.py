"""Streams as rows of a table and as panels of a plot. Knows no server."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.bench.contenders import LABELS
from service.bench.plots import Line, Panel

Row = dict[str, Any]
AIMS = {"retention": 0.99, "generality": 0.60, "locality_outside": 0.85, "capability": 0.95}  # of the default, at every mark


def build_rows(contender: str, marks: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a mark. `retention` counts all posted edits, also those that a contender did not accept."""
    return [_row(contender, mark) for mark in marks]


def _row(contender: str, mark: Mapping[str, Any]) -> Row:
    result = mark["after_all"] or {}
    greedy, tokens = result.get("greedy", {}), result.get("tokens", {})
    first_scores = mark["right_after"]
    return {
        "contender": contender,
        "edits": mark["edits"],
        "live": mark["live"],
        "retention": _score(greedy.get("reliability")),
        "generality": _score(greedy.get("generality", {}).get("untrained")),
        "locality_inside": _score(greedy.get("locality", {}).get("inside")),
        "locality_outside": _score(greedy.get("locality", {}).get("outside")),
        "locality": _score(greedy.get("locality")),
        "capability": (result.get("capability") or {}).get("ratio"),
        "retention_tokens": _score(tokens.get("reliability")),
        "generality_tokens": _score(tokens.get("generality", {}).get("untrained")),
        "locality_tokens": _score(tokens.get("locality")),
        "reliability_right_after": first_scores["reliability"]["score"],
        "generality_right_after": first_scores["generality"]["score"],
        "locality_right_after": first_scores["locality"]["score"],
        "latency_p50_s": mark["latency_since_last_mark_s"]["p50"],
        "latency_p95_s": mark["latency_since_last_mark_s"]["p95"],
        "latency_n": mark["latency_since_last_mark_s"]["n"],
        "latency_all_p50_s": mark["latency_s"]["p50"],
        "latency_all_p95_s": mark["latency_s"]["p95"],
        "late": mark.get("late", 0),
        "failed_requests": mark["failed_requests"],
        "window": mark["window"],
        "retrains_minor": mark["retrains"]["minor"],
        "retrains_major": mark["retrains"]["major"],
        "retrains_failed": mark["retrains"]["failed"],
        "version": mark["version"],
        "seconds": mark["seconds"],
    }


def build_panels(rows: Sequence[Row]) -> list[Panel]:
    """Six panels over the number of edits, one line a contender."""
    names = list(dict.fromkeys(row["contender"] for row in rows))

    def lines(measure: str) -> list[Line]:
        return [
            Line(LABELS.get(name, name).replace("`", ""), *_points([row for row in rows if row["contender"] == name], measure))
            for name in names
        ]

    measures = ("retention", "generality", "locality_inside", "locality_outside", "capability")
    panels = [
        Panel(measure.replace("_", " "), "edits", "share", lines(measure), aim=AIMS.get(measure), share=measure != "capability")
        for measure in measures
    ]
    return [*panels, Panel("POST → applied, median", "edits", "seconds", lines("latency_p50_s"), share=False)]


def find_shortfalls(rows: Sequence[Row]) -> list[str]:
    """A sentence for each aim that the default falls short of."""
    shortfalls = []
    for row in rows:
        for measure, aim in AIMS.items():
            value = row[measure]
            if value is not None and value < aim:
                shortfalls.append(f"{measure.replace('_', ' ')} is {value:.3f} after {row['edits']} edits, under {aim}")
    if rows and rows[-1]["failed_requests"]:
        shortfalls.append(f"{rows[-1]['failed_requests']} requests failed")
    return shortfalls


def _points(rows: Sequence[Row], measure: str) -> tuple[list[float], list[float | None]]:
    return [float(row["edits"]) for row in rows], [row[measure] for row in rows]


def _score(figure: Mapping[str, Any] | None) -> float | None:
    return None if not figure else figure["score"]
