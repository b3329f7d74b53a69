"""What the benchmarks say of themselves: figures, and the options shown."""

import json
from pathlib import Path
from typing import Any

from benchmarks.kill9 import NAMED_MOMENTS, choose_moments
from benchmarks.report import render
from service.bench.results import format_command, percentile, round_figures, visible_options
from service.lifecycle.crash_points import POINTS


def figure(score: float | None, n: int = 10) -> dict[str, Any]:
    return {"score": score, "n": n}


def single(generality: float) -> dict[str, Any]:
    """A result of `benchmarks.single` as it is written."""
    greedy = {
        "reliability": figure(1.0),
        "generality": figure(generality),
        "locality": {"outside": figure(0.96), "inside": figure(0.9)},
        "portability": figure(None, 0),
    }
    neutral = {"prompts_among_neutral_sentences": 0.08, "locality_outside_and_not_among_them": 0.95, "n": 9}
    return {
        "date": "2026-11-20 12:00 UTC",
        "command": "python -m benchmarks.single",
        "machine": {"processor": "a processor", "cores": 2, "load": 0.5, "device": "cpu", "threads": 1},
        "software": {"torch": "2"},
        "figures": {"edits": 10, "greedy": greedy, "neutral": neutral, "seconds_p50": 0.5, "steps_mean": 7.0},
    }


def rendered(folder: Path, generality: float) -> str:
    (folder / "single.json").write_text(json.dumps(single(generality)))
    return render(folder)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert percentile([7.0], 0.5) == 7.0


def test_figures_are_rounded_to_four_digits() -> None:
    assert round_figures({"a": [0.123456, 12345.6], "b": 7}) == {"a": [0.1235, 12350.0], "b": 7}


def test_a_command_is_written_without_its_folders() -> None:
    assert visible_options(["--edits", "10", "--model", "here", "--results", "there", "--seed", "1"]) == [
        "--edits",
        "10",
        "--seed",
        "1",
    ]


def test_a_command_is_written_as_another_person_would_type_it() -> None:
    assert format_command(["/there/benchmarks/single.py", "--edits", "10"]) == "python -m benchmarks.single --edits 10"
    assert format_command(["/there/errata", "bench", "stream", "--edits", "my.json", "--n", "10"]) == "errata bench stream --n 10"


def test_a_figure_that_falls_short_is_reported_and_marked(tmp_path: Path) -> None:
    assert "| generality | **0.80** (short) | 10 | ≥ 0.85 |" in rendered(tmp_path, 0.80)
    assert "| generality | 0.85 | 10 | ≥ 0.85 |" in rendered(tmp_path, 0.85)


def test_the_document_has_date_command_machine_and_remarks(tmp_path: Path) -> None:
    (tmp_path / "remarks.json").write_text(json.dumps({"single": "Why it falls short."}))

    document = rendered(tmp_path, 0.80)

    assert "- 2026-11-20 12:00 UTC, `python -m benchmarks.single`, a processor, 2 cores, 1 thread" in document
    assert "Why it falls short." in document


def test_kills_are_at_existing_points_and_begin_with_every_kind_of_work() -> None:
    assert {moment.point.partition(":")[0] for moment in NAMED_MOMENTS if moment.point} <= POINTS
    chosen = list(choose_moments(20, seed=0))
    assert len(chosen) == 20
    assert {moment.work for moment in chosen[:6]} == {"edits", "rollback", "retrain"}
