"""Figure 3 of the LocFT-BF paper: five shards of edits, each measured repeatedly while training proceeds.

Depth-first training trains one shard after another and is measured after each shard. Breadth-first training is measured after
training epochs. A training of fewer edits or epochs is the beginning of a longer one, so each measurement trains anew.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from service.bench.bench_model import BenchModel, to_items
from service.bench.contrast_cases import EVERY_SURFACE, ONE_BY_ONE
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.evaluation.records import Record
from service.evaluation.report import build_report
from service.lm.overlay import Overlay

SHARDS = 5
EPOCHS = (1, 2, 3, 4, 6, 8, 12, 16, 25)
DEPTH = LocftSettings(preset="ft_m", **EVERY_SURFACE)
BREADTH = DEPTH.model_copy(update=dict(ONE_BY_ONE))


def run_shards(bench_model: BenchModel, n: int) -> Iterator[dict[str, Any]]:
    """One row a measurement: the order, the progress of training, and each shard's score (None for shards not trained yet)."""
    shards = split_shards(bench_model.records[:n])
    for count in range(1, len(shards) + 1):
        overlay = _train(bench_model, [record for shard in shards[:count] for record in shard], DEPTH)
        yield _row(bench_model, overlay, shards, "depth-first", count, trained_count=count)
    previous_epochs = 0
    for epochs in EPOCHS:
        result = fit_locft(
            bench_model.base,
            to_items(bench_model.records[:n]),
            settings=BREADTH.model_copy(update={"epochs": epochs}),
            neutral=bench_model.neutral,
            names=bench_model.editor_context.names,
            seed=0,
        )
        epochs_run = max(int(report["epochs"]) for report in result.reports.values())
        if epochs_run == previous_epochs:
            return  # training had converged
        previous_epochs = epochs_run
        yield _row(bench_model, result.overlay, shards, "breadth-first", epochs_run, trained_count=len(shards))


def split_shards(records: Sequence[Record]) -> list[Sequence[Record]]:
    """Five parts of equal size, up to one record."""
    cuts = [number * len(records) // SHARDS for number in range(SHARDS + 1)]
    return [records[begin:end] for begin, end in pairwise(cuts)]


def _train(bench_model: BenchModel, records: Sequence[Record], settings: LocftSettings) -> Overlay:
    return fit_locft(
        bench_model.base,
        to_items(records),
        settings=settings,
        neutral=bench_model.neutral,
        names=bench_model.editor_context.names,
        seed=0,
    ).overlay


def _row(
    bench_model: BenchModel,
    overlay: Overlay,
    shards: Sequence[Sequence[Record]],
    order: str,
    progress: int,
    *,
    trained_count: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"order": order, "at": progress}
    for number, shard in enumerate(shards):
        scores = build_report(bench_model.measure(overlay, shard)) if number < trained_count else None
        row[f"shard_{number + 1}"] = None if scores is None else scores["greedy"]["reliability"]["score"]
        row[f"shard_{number + 1}_tokens"] = None if scores is None else scores["tokens"]["reliability"]["score"]
    return row
