"""Single edits: each is fitted by the service default on the base model and measured at once."""

import time

from benchmarks.command import add_skip, build_parser, parse_options, percentile, write
from benchmarks.inputs import BenchModel, load_model, occurs_in_neutral, to_edit
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.protocol import FitItem, Hooks
from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import Record
from service.evaluation.report import build_report
from service.lm.overlay import EMPTY


def fit_alone(
    bench_model: BenchModel, record: Record, settings: BaftSettings, seed: int
) -> tuple[list[Outcome], dict[str, float]]:
    """One edit on the base model: the outcomes of its questions, and the seconds and steps of the fit."""
    edit = to_edit(record, seed)
    started_at = time.perf_counter()
    result = fit_baft(
        bench_model.base,
        bench_model.view_of,
        EMPTY,
        [FitItem(edit, edit.target)],
        (),
        settings=settings,
        neutral=bench_model.neutral,
        names=bench_model.editor_context.names,
        seed=seed,
        hooks=Hooks(),
    )
    seconds = time.perf_counter() - started_at
    return bench_model.measure(result.overlay, [record]), {"seconds": seconds, "steps": float(result.reports[edit.id]["steps"])}


def locality_and_neutral(bench_model: BenchModel, outcomes: list[Outcome]) -> dict[str, float | int | None]:
    """The share of locality prompts among the neutral sentences, and locality outside the pool on the other prompts."""
    locality = [outcome for outcome in outcomes if outcome.question.kind == "locality"]
    is_neutral = occurs_in_neutral([outcome.question.prompt for outcome in locality], bench_model.neutral)
    others = [
        outcome.greedy
        for outcome, is_known in zip(locality, is_neutral, strict=True)
        if not is_known and outcome.question.pool is False
    ]
    return {
        "prompts_among_neutral_sentences": sum(is_neutral) / len(is_neutral) if is_neutral else None,
        "locality_outside_and_not_among_them": sum(others) / len(others) if others else None,
        "n": len(others),
    }


def main() -> None:
    """The command."""
    parser = add_skip(build_parser(__doc__, edits=100))
    parser.add_argument("--preset", choices=("default", "paper", "reft"), default="default")
    arguments = parse_options(parser)
    bench_model = load_model(arguments.model, arguments.records, edits=arguments.edits, skip=arguments.skip)
    settings = BaftSettings(preset=arguments.preset)
    fits = [fit_alone(bench_model, record, settings, seed) for seed, record in enumerate(bench_model.records)]
    outcomes = [outcome for edit_outcomes, _ in fits for outcome in edit_outcomes]
    seconds = [cost["seconds"] for _, cost in fits]
    figures = {
        "preset": arguments.preset,
        "edits": arguments.edits,
        **build_report(outcomes),
        "neutral": locality_and_neutral(bench_model, outcomes),
        "seconds_p50": percentile(seconds, 0.5),
        "seconds_p90": percentile(seconds, 0.9),
        "steps_mean": sum(cost["steps"] for _, cost in fits) / len(fits),
    }
    write(arguments.results, "single" if arguments.preset == "default" else f"single_{arguments.preset}", figures)


if __name__ == "__main__":
    main()
