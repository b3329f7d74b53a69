"""How long a retrain takes: against the number of edits, and minor beside major on the same live set.

A major retrain trains all edits from the base model. A minor one starts from the tensors that say the settled edits, and learns
those of the window; its drift is how far what it gives lies from what a major one gives for the same edits.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.outcome import add_skip, build_parser, parse_options, write
from service.bench.measured_model import MeasuredModel, open_model, to_items
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
    chosen = parse_options(parser)
    settings = load_settings().locft
    records = load_records(chosen.records, n=max(chosen.most, WINDOW), skip=chosen.skip)
    place = open_model(chosen.model, records)
    figures: dict[str, Any] = {"window": WINDOW, "against_edits": [], "minor_and_major": []}
    for edits in (count for count in EDITS if count <= chosen.most):
        figures["against_edits"].append(time_major(place, records[:edits], settings))
        figures["line"] = fit_line(figures["against_edits"])
        write(chosen.results, "retrain_time", figures)
    for consolidated in (count for count in SETTLED if count + WINDOW <= chosen.most):
        figures["minor_and_major"].append(
            compare_minor_and_major(place, records[:consolidated], records[consolidated : consolidated + WINDOW], settings)
        )
        write(chosen.results, "retrain_time", figures)


def time_major(place: MeasuredModel, records: Sequence[Record], settings: LocftSettings) -> dict[str, Any]:
    """A retrain of everything from the base."""
    fitted, seconds = time_fit(place, to_items(records), settings, EMPTY)
    return {"edits": len(records), **fit_cost(fitted, seconds)}


def compare_minor_and_major(
    place: MeasuredModel, consolidated: Sequence[Record], window: Sequence[Record], settings: LocftSettings
) -> dict[str, Any]:
    """What a minor and a major retrain make of one live set: the first starts from tensors that say the settled part."""
    before, _ = time_fit(place, to_items(consolidated), settings, EMPTY)
    live = [*consolidated, *window]
    items = to_items(live)
    known = [FitItem(item.edit, item.target, is_consolidated=number < len(consolidated)) for number, item in enumerate(items)]
    minor, minor_s = time_fit(place, known, settings, before.overlay)
    major, major_s = time_fit(place, items, settings, EMPTY)
    return {
        "settled": len(consolidated),
        "minor": {**fit_cost(minor, minor_s), **measure_scores(place, minor.overlay, live)},
        "major": {**fit_cost(major, major_s), **measure_scores(place, major.overlay, live)},
        "ratio": major_s / minor_s,
        "drift": measure_drift(place, minor.overlay, major.overlay),
    }


def time_fit(place: MeasuredModel, items: Sequence[FitItem], settings: LocftSettings, start: Overlay) -> tuple[FitResult, float]:
    """A retrain and its seconds."""
    began = time.perf_counter()
    fitted = fit_locft(place.base, items, settings=settings, neutral=place.neutral, seed=0, start=start)
    return fitted, time.perf_counter() - began


def fit_cost(fitted: FitResult, seconds: float) -> dict[str, Any]:
    """What a retrain took and whether it took everything."""
    epochs = max(int(report["epochs"]) for report in fitted.reports.values())
    return {"seconds": seconds, "epochs": epochs, "retention": fitted.scores["retention"], "canary": fitted.scores["canary"]}


def measure_scores(place: MeasuredModel, overlay: Overlay, live: Sequence[Record]) -> dict[str, Any]:
    """What the live set says of it."""
    found = place.score(overlay, live)
    greedy = found["greedy"]
    return {
        "generality": greedy["generality"]["untrained"]["score"],
        "locality_inside": greedy["locality"]["inside"]["score"],
        "locality_outside": greedy["locality"]["outside"]["score"],
        "capability": found["capability"]["ratio"],
    }


def measure_drift(place: MeasuredModel, minor: Overlay, major: Overlay) -> dict[str, float]:
    """The distance of both from each other and from the base model, as norms over all tuned entries."""
    own = dict(place.base.model.named_parameters())

    def distance(left: Any, right: Any) -> float:
        return float(torch.cat([(left[name] - right[name]).flatten() for name in minor.tensors]).norm())

    return {
        "minor_to_major": distance(minor.tensors, major.tensors),
        "minor_to_base": distance(minor.tensors, own),
        "major_to_base": distance(major.tensors, own),
    }


def fit_line(rows: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Least squares: seconds an edit, seconds beside, and how much of the spread the line explains."""
    if len(rows) < 3:
        return None
    x, y = (np.array([row[name] for row in rows], dtype=float) for name in ("edits", "seconds"))
    slope, offset = np.polyfit(x, y, 1)
    rest = float(((y - (slope * x + offset)) ** 2).sum())
    return {"seconds_an_edit": float(slope), "offset_s": float(offset), "r2": 1.0 - rest / float(((y - y.mean()) ** 2).sum())}


if __name__ == "__main__":
    main()
