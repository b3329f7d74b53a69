"""A mark: what a stream's overlay gives after so many fits, on all edits so far or on a fixed sample of them."""

from collections.abc import Sequence
from random import Random
from typing import Any

from service.bench.bench_model import BenchModel
from service.bench.continual.balance import measure_balance
from service.bench.continual.sequential_fits import SequentialFits
from service.bench.results import percentile
from service.evaluation.records import Record
from service.evaluation.report import build_report

MOST_ASKED = 200  # edits at one mark
MEASURES = ("reliability", "generality", "locality")
Mark = dict[str, Any]


def choose_asked(records: Sequence[Record], seed: int) -> list[Record]:
    """The edits that a mark asks: all, or a sample of `MOST_ASKED` that depends on the seed and on the number of edits alone."""
    if len(records) <= MOST_ASKED:
        return list(records)
    chosen = Random(f"asked {seed} {len(records)}").sample(range(len(records)), MOST_ASKED)
    return [records[index] for index in sorted(chosen)]


def measure_mark(bench_model: BenchModel, fits: SequentialFits, records: Sequence[Record], seed: int) -> Mark:
    """Reliability, generality and locality by teacher-forced tokens, as in the papers, and by whole greedy answers (`exact`); the
    two quantities of load balancing; seconds an edit, by the median fit since the mark before.
    """
    asked = choose_asked(records, seed)
    report = build_report(bench_model.measure(fits.overlay, asked))
    return {
        "fits": fits.fits,
        "edits": len(records),
        "asked": len(asked),
        **{name: report["tokens"][name]["score"] for name in MEASURES},
        **{f"{name}_exact": report["greedy"][name]["score"] for name in MEASURES},
        **measure_balance(bench_model, fits.overlay.adapter, asked, eos=fits.settings.eos),
        "failed_fits": fits.failed,
        "seconds_an_edit": percentile(fits.seconds_since_mark(), 0.5) * fits.fits / len(records),
    }
