"""The cost of a long window: locality, generality and retention while BaFT alone carries more and more edits.

Edits are fitted one after another as in the service, but none is ever consolidated. The default of `window.soft` is chosen by the
longest window that still keeps locality outside the pool.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.command import add_skip, build_parser, parse_options, write
from service.bench.bench_model import BenchModel, open_model
from service.bench.continual.sequential_fits import SequentialFits
from service.bench.contrast_runs import flatten_scores
from service.bench.plots import Line, Panel, draw
from service.bench.records import load_records
from service.editors.baft.settings import BaftSettings
from service.settings import load_settings

LENGTHS = (10, 25, 50, 75, 100, 150, 200)
SHOWN = ("reliability", "generality", "locality_inside", "locality_outside", "capability")


def main() -> None:
    """The command."""
    arguments = parse_options(add_skip(build_parser(__doc__, edits=max(LENGTHS))))
    bench_model = open_model(arguments.model, load_records(arguments.records, n=arguments.edits, skip=arguments.skip))
    settings = load_settings()
    rows: list[dict[str, Any]] = []
    for row in measure_curve(bench_model, settings.of_method(BaftSettings)):
        rows.append(row)
        write(arguments.results, "window_curve", {"soft": settings.window.soft, "hard": settings.window.hard, "rows": rows})
    draw(arguments.results / "window_curve.svg", build_panels(rows))


def measure_curve(bench_model: BenchModel, settings: Any) -> Iterator[dict[str, Any]]:
    """One row a length."""
    fits = SequentialFits(bench_model, settings)
    for length, record in enumerate(bench_model.records, 1):
        fits.apply([record])
        if length in LENGTHS or length == len(bench_model.records):
            yield {"window": length, **flatten_scores(bench_model.score(fits.overlay, bench_model.records[:length]))}


def build_panels(rows: list[dict[str, Any]]) -> list[Panel]:
    """All shares over the length of the window."""
    x = [float(row["window"]) for row in rows]
    lines = [Line(name.replace("_", " "), x, [row[name] for row in rows]) for name in SHOWN]
    return [Panel("BaFT alone", "edits in the window", "share", lines)]


if __name__ == "__main__":
    main()
