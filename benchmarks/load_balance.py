"""BaFT with and without load balancing, over edits in one window: the balance of the bases, and the gates on kinds of prompts.

Two figures a block, averaged over blocks: the squared coefficient of variation of the running mean weights of the bases, and the
share of bases that are active (mean weight on the edits above half of the largest). Mean gates on edits, rephrases and unrelated
prompts are the paper's Fig. 2.
"""

import torch
from torch import Tensor

from benchmarks.command import build_parser, parse_options, write
from benchmarks.inputs import BenchModel, load_model
from benchmarks.sequential_baft import SequentialBaft
from service.editors.baft.settings import BaftSettings
from service.evaluation.records import Record
from service.evaluation.report import build_report
from service.lm.intervention import Adapter
from service.lm.prompts import Row, encode_row
from service.lm.scoring import gate_means

ACTIVE = 0.5  # of the largest mean weight in the block


def main() -> None:
    """The command."""
    arguments = parse_options(build_parser(__doc__, edits=50))
    bench_model = load_model(arguments.model, arguments.records, edits=arguments.edits)
    variants = {
        "balanced": BaftSettings(),
        "unbalanced": BaftSettings(balance="none"),
        "paper_balanced": BaftSettings(preset="paper"),
        "paper_unbalanced": BaftSettings(preset="paper", balance="none"),
    }
    write(
        arguments.results,
        "load_balance",
        {"edits": arguments.edits, **{name: _measure_variant(bench_model, settings) for name, settings in variants.items()}},
    )


def _measure_variant(bench_model: BenchModel, settings: BaftSettings) -> dict[str, object]:
    trainer = SequentialBaft(bench_model, settings, window=settings.replay > 0)
    for seq, record in enumerate(bench_model.records, 1):
        trainer.apply(record, seq)
    overlay = trainer.overlay
    assert overlay.adapter is not None
    greedy = build_report(bench_model.measure(overlay, bench_model.records))["greedy"]
    return {
        **measure_balance(bench_model, overlay.adapter, bench_model.records),
        "reliability": greedy["reliability"]["score"],
        "generality": greedy["generality"]["score"],
        "locality": greedy["locality"]["score"],
    }


def measure_balance(bench_model: BenchModel, adapter: Adapter, records: list[Record]) -> dict[str, object]:
    """Squared CV and share of active bases on the edits, and the mean gate on each kind of row."""
    rows = _rows(bench_model, records)
    means = {kind: gate_means(bench_model.base_view, kind_rows, adapter) for kind, kind_rows in rows.items()}
    on_edits = list(means["edits"].values())
    return {
        "squared_cv": _mean([_squared_cv(weights) for weights in on_edits]),
        "active_share": _mean([float((weights > ACTIVE * weights.max()).float().mean()) for weights in on_edits]),
        "mean_gate": {
            kind: _mean([float(weights.mean()) for weights in weights_by_block.values()])
            for kind, weights_by_block in means.items()
        },
        "by_block": {
            str(block): {
                kind: [round(float(weight), 4) for weight in weights_by_block[block]] for kind, weights_by_block in means.items()
            }
            for block in means["edits"]
        },
    }


def _rows(bench_model: BenchModel, records: list[Record]) -> dict[str, list[Row]]:
    """Edits and rephrases with the target, unrelated prompts with their own answer."""
    base = bench_model.base
    return {
        "edits": [encode_row(base, record.prompt, record.target) for record in records],
        "rephrases": [encode_row(base, probe.prompt, record.target) for record in records for probe in record.rephrases],
        "unrelated": [encode_row(base, p.prompt, p.answer) for record in records for p in record.locality if p.answer],
    }


def _squared_cv(weights: Tensor) -> float:
    return float(weights.var(unbiased=True) / weights.mean().clamp(min=torch.finfo(weights.dtype).tiny) ** 2)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
