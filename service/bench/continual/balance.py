"""How evenly the bases of an adapter are used after many edits, by two quantities (`service/editors/baft/basis_report.py`)."""

from collections.abc import Sequence
from typing import Any

from service.bench.bench_model import BenchModel
from service.editors.baft.basis_report import basis_report
from service.evaluation.records import Record
from service.lm.intervention import Adapter
from service.lm.prompts import encode_row

RUNNING, FINAL = "running_squared_variation", "final_squared_variation"


def measure_balance(
    bench_model: BenchModel, adapter: Adapter | None, records: Sequence[Record], *, eos: bool
) -> dict[str, float | None]:
    """CV² over the bases, averaged over blocks, of two quantities. None without gates.

    The *running mean* S/n counts every edit so far with the gates of the moment when it was fitted. The *final gates* are those
    with which the present adapter reads the prompts of `records` again. `eos` is that of the fits: both are over like positions.
    """
    if adapter is None or not adapter.balance:
        return {RUNNING: None, FINAL: None}
    base = bench_model.base
    rows = [
        encode_row(base, record.prompt, record.target, surface=surface, eos=eos)
        for record in records
        for surface in record.surfaces or base.surfaces
    ]
    blocks = basis_report(bench_model.base_view, adapter, {"edits": rows})["blocks"]
    return {name: _mean([block[name] for block in blocks]) for name in (RUNNING, FINAL)}


def _mean(values: Sequence[Any]) -> float:
    return sum(values) / len(values)
