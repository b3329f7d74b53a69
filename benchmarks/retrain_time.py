"""The time of a retrain against the number of edits, and of a minor beside a major retrain on the same live set.

A major retrain trains all edits from the base model. A minor retrain starts from the tensors of the consolidated edits and trains
the window. Its drift is the distance of its tensors from those of a major retrain of the same edits.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.command import add_skip, build_parser, parse_options, write
from service.bench.bench_model import BenchModel, open_model, to_items
from service.bench.records import load_records
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.protocol import FitItem, FitResult
from service.evaluation.records import Record
from service.lm.overlay import EMPTY, Overlay
from service.settings import load_settings

EDITS = (50, 100, 200, 400)
SETTLED = (100, 200, 300)
WINDOW = 25


def main() -> None:
    """The command."""
    parser = add_skip(build_parser(__doc__))
    parser.add_argument("--most", type=int, default=max(EDITS), help="leave out what needs more edits")
    arguments = parse_options(parser)
    settings = load_settings().of_method(LocftSettings)
    records = load_records(arguments.records, n=max(arguments.most, WINDOW), skip=arguments.skip)
    bench_model = open_model(arguments.model, records)
    figures: dict[str, Any] = {"window": WINDOW, "against_edits": [], "minor_and_major": []}
    for edits in (count for count in EDITS if count <= arguments.most):
        figures["against_edits"].append(time_major(bench_model, records[:edits], settings))
        figures["line"] = fit_line(figures["against_edits"])
        write(arguments.results, "retrain_time", figures)
    for consolidated in (count for count in SETTLED if count + WINDOW <= arguments.most):
        figures["minor_and_major"].append(
            compare_minor_and_major(bench_model, records[:consolidated], records[consolidated : consolidated + WINDOW], settings)
        )
        write(arguments.results, "retrain_time", figures)


def time_major(bench_model: BenchModel, records: Sequence[Record], settings: LocftSettings) -> dict[str, Any]:
    """A major retrain: all records, from the base model."""
    result, seconds = time_fit(bench_model, to_items(records), settings, EMPTY)
    return {"edits": len(records), **fit_cost(result, seconds)}


def compare_minor_and_major(
    bench_model: BenchModel, consolidated: Sequence[Record], window: Sequence[Record], settings: LocftSettings
) -> dict[str, Any]:
    """A minor and a major retrain of one live set. The minor one starts from the tensors of the consolidated part."""
    parent, _ = time_fit(bench_model, to_items(consolidated), settings, EMPTY)
    live = [*consolidated, *window]
    items = to_items(live)
    marked_items = [
        FitItem(item.edit, item.target, is_consolidated=number < len(consolidated)) for number, item in enumerate(items)
    ]
    minor, minor_s = time_fit(bench_model, marked_items, settings, parent.overlay)
    major, major_s = time_fit(bench_model, items, settings, EMPTY)
    return {
        "settled": len(consolidated),
        "minor": {**fit_cost(minor, minor_s), **measure_scores(bench_model, minor.overlay, live)},
        "major": {**fit_cost(major, major_s), **measure_scores(bench_model, major.overlay, live)},
        "ratio": major_s / minor_s,
        "drift": measure_drift(bench_model, minor.overlay, major.overlay),
    }


def time_fit(
    bench_model: BenchModel, items: Sequence[FitItem], settings: LocftSettings, start: Overlay
) -> tuple[FitResult, float]:
    """A retrain and its seconds."""
    started_at = time.perf_counter()
    result = fit_locft(
        bench_model.base,
        items,
        settings=settings,
        neutral=bench_model.neutral,
        names=bench_model.editor_context.names,
        seed=0,
        start=start,
    )
    return result, time.perf_counter() - started_at


def fit_cost(result: FitResult, seconds: float) -> dict[str, Any]:
    """Seconds and epochs of a fit, and its own scores."""
    epochs = max(int(report["epochs"]) for report in result.reports.values())
    return {"seconds": seconds, "epochs": epochs, "retention": result.scores["retention"]}


def measure_scores(bench_model: BenchModel, overlay: Overlay, live: Sequence[Record]) -> dict[str, Any]:
    """Scores of an overlay on the live set."""
    scores = bench_model.score(overlay, live)
    greedy = scores["greedy"]
    return {
        "generality": greedy["generality"]["untrained"]["score"],
        "locality_inside": greedy["locality"]["inside"]["score"],
        "locality_outside": greedy["locality"]["outside"]["score"],
        "capability": scores["capability"]["ratio"],
    }


def measure_drift(bench_model: BenchModel, minor: Overlay, major: Overlay) -> dict[str, float]:
    """The distances of both from each other and from the base model, as norms over all tuned entries."""
    base_tensors = dict(bench_model.base.model.named_parameters())

    def distance(left: Any, right: Any) -> float:
        return float(torch.cat([(left[name] - right[name]).flatten() for name in minor.tensors]).norm())

    return {
        "minor_to_major": distance(minor.tensors, major.tensors),
        "minor_to_base": distance(minor.tensors, base_tensors),
        "major_to_base": distance(major.tensors, base_tensors),
    }


def fit_line(rows: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Least squares: the slope in seconds an edit, the offset in seconds, and R²."""
    if len(rows) < 3:
        return None
    x, y = (np.array([row[name] for row in rows], dtype=float) for name in ("edits", "seconds"))
    slope, offset = np.polyfit(x, y, 1)
    residual = float(((y - (slope * x + offset)) ** 2).sum())
    return {"seconds_an_edit": float(slope), "offset_s": float(offset), "r2": 1.0 - residual / float(((y - y.mean()) ** 2).sum())}


if __name__ == "__main__":
    main()
