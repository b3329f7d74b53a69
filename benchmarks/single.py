"""Single edits, each fitted by the service default on the base model and asked at once."""

import time

from benchmarks.atlas import MeasuredModel, load_model, occurs_in_neutral, to_edit
from benchmarks.outcome import add_skip, build_parser, parse_options, percentile, write
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.protocol import FitItem, Hooks
from service.evaluation.metrics.outcomes import Outcome
from service.evaluation.records import Record
from service.evaluation.report import build_report
from service.lm.overlay import EMPTY


def fit_alone(place: MeasuredModel, record: Record, settings: BaftSettings, seed: int) -> tuple[list[Outcome], dict[str, float]]:
    """One edit on the base model: how its questions went, and what the fit cost."""
    edit = to_edit(record, seed)
    began = time.perf_counter()
    fitted = fit_baft(
        place.base,
        place.view_of,
        EMPTY,
        [FitItem(edit, edit.target)],
        (),
        settings=settings,
        neutral=place.neutral,
        seed=seed,
        hooks=Hooks(),
    )
    seconds = time.perf_counter() - began
    return place.measure(fitted.overlay, [record]), {"seconds": seconds, "steps": float(fitted.reports[edit.id]["steps"])}


def locality_and_neutral(place: MeasuredModel, outcomes: list[Outcome]) -> dict[str, float | int | None]:
    """The share of locality prompts that occur among the neutral sentences, and locality on the probe half less those."""
    local = [outcome for outcome in outcomes if outcome.question.kind == "locality"]
    seen = occurs_in_neutral([outcome.question.prompt for outcome in local], place.neutral)
    strange = [outcome.greedy for outcome, known in zip(local, seen, strict=True) if not known and outcome.question.pool is False]
    return {
        "prompts_among_neutral_sentences": sum(seen) / len(seen) if seen else None,
        "locality_outside_and_not_among_them": sum(strange) / len(strange) if strange else None,
        "n": len(strange),
    }


def main() -> None:
    """The command."""
    parser = add_skip(build_parser(__doc__, edits=100))
    parser.add_argument("--preset", choices=("default", "paper", "reft"), default="default")
    chosen = parse_options(parser)
    place = load_model(chosen.model, chosen.records, edits=chosen.edits, skip=chosen.skip)
    settings = BaftSettings(preset=chosen.preset)
    fits = [fit_alone(place, record, settings, seed) for seed, record in enumerate(place.records)]
    outcomes = [outcome for found, _ in fits for outcome in found]
    seconds = [cost["seconds"] for _, cost in fits]
    figures = {
        "preset": chosen.preset,
        "edits": chosen.edits,
        **build_report(outcomes),
        "neutral": locality_and_neutral(place, outcomes),
        "seconds_p50": percentile(seconds, 0.5),
        "seconds_p90": percentile(seconds, 0.9),
        "steps_mean": sum(cost["steps"] for _, cost in fits) / len(fits),
    }
    write(chosen.results, "single" if chosen.preset == "default" else f"single_{chosen.preset}", figures)


if __name__ == "__main__":
    main()
