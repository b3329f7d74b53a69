"""BaFT with and without load balancing, one edit after another: how evenly the bases are used, and the gates on kinds of prompts.

Evenness is the squared coefficient of variation over the bases, averaged over blocks, of two quantities. The *running mean* S/n
is what load balancing minimises: each edit counts with the gates of the moment when it was fitted. The *final gates* are those of
the last adapter, with which the prompts of all edits are read again. Mean gates on edits, rephrases and unrelated prompts are
the paper's Fig. 2.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from benchmarks.command import build_parser, parse_options, write
from benchmarks.inputs import BenchModel, load_model
from service.bench.continual.balance import measure_balance
from service.bench.continual.sequential_fits import SequentialFits
from service.editors.baft.settings import BaftSettings
from service.evaluation.records import Record
from service.evaluation.report import build_report
from service.lm.intervention import Adapter
from service.lm.prompts import Row, encode_row
from service.lm.scoring import gate_means

MARKS = (1, 10, 20, 40)
VARIANTS = {
    "balanced": BaftSettings(),
    "balanced_horizon": BaftSettings(balance_horizon=16),
    "balanced_unlimited": BaftSettings(balance_limited=False),
    "balanced_horizon_unlimited": BaftSettings(balance_horizon=16, balance_limited=False),
    "unbalanced": BaftSettings(balance="none"),
    "paper_balanced": BaftSettings(preset="paper"),
    "paper_unbalanced": BaftSettings(preset="paper", balance="none"),
}


def main() -> None:
    """The command. The figures are written after every mark."""
    parser = build_parser(__doc__, edits=max(MARKS))
    parser.add_argument("--seeds", type=int, default=3, help="how many orders of the edits")
    arguments = parse_options(parser)
    bench_model = load_model(arguments.model, arguments.records, edits=arguments.edits)
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for name, settings in VARIANTS.items():
            for row in _measure_variant(bench_model, settings, seed):
                rows.append({"variant": name, "seed": seed, **row})
                write(arguments.results, "load_balance", {"edits": arguments.edits, "rows": rows}, is_quiet=True)
                print(f"{name}, seed {seed}: {row}", flush=True)


def _measure_variant(bench_model: BenchModel, settings: BaftSettings, seed: int) -> Iterator[dict[str, Any]]:
    """One row a mark, the last one after all edits with scores and mean gates. The seed sets the order of the edits."""
    records = Random(seed).sample(bench_model.records, len(bench_model.records))
    fits = SequentialFits(bench_model, settings, seed=seed)
    for count, record in enumerate(records, 1):
        fits.apply([record])
        if count in MARKS or count == len(records):
            yield {"edits": count, **_measure(bench_model, fits, records[:count], is_last=count == len(records))}


def _measure(bench_model: BenchModel, fits: SequentialFits, records: list[Record], *, is_last: bool) -> dict[str, Any]:
    adapter = fits.overlay.adapter
    assert adapter is not None
    balance = measure_balance(bench_model, adapter, records, eos=fits.settings.eos)
    if not is_last:
        return dict(balance)
    greedy = build_report(bench_model.measure(fits.overlay, records))["greedy"]
    scores = {name: greedy[name]["score"] for name in ("reliability", "generality", "locality")}
    return {**balance, "mean_gate": measure_gates(bench_model, adapter, records), **scores}


def measure_gates(bench_model: BenchModel, adapter: Adapter, records: list[Record]) -> dict[str, float]:
    """The mean gate over all bases and blocks on each kind of row."""
    means = {kind: gate_means(bench_model.base_view, rows, adapter) for kind, rows in _rows(bench_model, records).items()}
    return {kind: _mean([float(weights.mean()) for weights in of_block.values()]) for kind, of_block in means.items()}


def _rows(bench_model: BenchModel, records: list[Record]) -> dict[str, list[Row]]:
    """Edits and rephrases with the target, unrelated prompts with their own answer."""
    base = bench_model.base
    return {
        "edits": [encode_row(base, record.prompt, record.target) for record in records],
        "rephrases": [encode_row(base, probe.prompt, record.target) for record in records for probe in record.rephrases],
        "unrelated": [encode_row(base, p.prompt, p.answer) for record in records for p in record.locality if p.answer],
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
