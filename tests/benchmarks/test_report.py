"""What the document says of streams, contrasts, retrains and the window, from results as they are written."""

import json
from pathlib import Path
from typing import Any

from benchmarks.authors import measure_difference, trainer_batches
from benchmarks.report import render
from benchmarks.retrain_time import fit_line
from service.bench.ground.scores import ProbeScore, ProseScore, summarise
from tests.bench.test_stream import mark
from tests.builders import make_base


def result(figures: dict[str, Any]) -> str:
    """A result file."""
    machine = {"processor": "a processor", "cores": 2, "load": 0.5, "device": "cpu", "threads": 1}
    about = {"date": "2026-11-20 12:00 UTC", "command": "a command", "machine": machine, "software": {"torch": "2"}}
    return json.dumps({**about, "figures": figures})


def test_shortfalls_of_the_default_alone_are_marked(tmp_path: Path) -> None:
    for contender in ("default", "reft"):
        figures = {"marks": [mark(50), mark(100, retention=0.5, outside=0.8)]}
        (tmp_path / f"stream_{contender}.json").write_text(result(figures))

    document = render(tmp_path)

    assert "| service default | 50 | 1.00 | 0.70 | 1.00 | 0.90 | 0.99 | 5 | 1 + 0 | 0.60 / 0.70 s | 0 |" in document
    assert "| service default | 100 | **0.50** (short) | 0.70 | 1.00 | **0.80** (short) |" in document
    assert "| ReFT | 100 | 0.50 | 0.70 | 1.00 | 0.80 |" in document
    assert "| ReFT | 50 |" not in document
    assert "stream.svg" in document


def test_a_stream_by_the_clock_has_its_own_table(tmp_path: Path) -> None:
    figures = {"pace_s": 2.5, "marks": [mark(50), mark(100) | {"late": 3}]}
    (tmp_path / "stream_paced_default.json").write_text(result(figures))

    document = render(tmp_path)

    assert "| service default | 2.5 s | 100 | 1.00 | 0.70 | 0.90 | 1 + 0 | 0.60 / 0.70 s | 0.50 / 0.50 s | 3 | 0 |" in document
    assert "## A stream of edits\n" not in document


def test_a_short_ratio_to_the_authors_procedure_is_marked(tmp_path: Path) -> None:
    tokens = {"shortest": 11, "mean": 12.5, "longest": 15, "of_target": 3}
    figures = {"blocks": 24, "width": 896, "vocabulary": 151936, "edits": 200, "epochs": 2, "batch": 100, "block": 16}
    figures |= {"tokens_a_row": tokens, "ours_s": 100.0, "plain_s": 200.0, "ratio": 2.0, "ratio_cpu": 2.1}
    figures |= {"largest_change": 2e-3, "largest_difference": 5e-6, "relative_difference": 7e-6}
    (tmp_path / "authors.json").write_text(result(figures))

    assert "| ratio | **2.00×** (short) | ≥ 2.5× |" in render(tmp_path)


def test_a_ground_shows_the_default_and_the_tricks_beside_it(tmp_path: Path) -> None:
    probes = [ProbeScore("one", "near", True, True, 0.9), ProbeScore("one", "reliability", True, True, 0.9)]
    scores = summarise(probes, [ProseScore("one", "human text", 0.97, 0.012)])
    about = {"model": "a model", "surface": "qa", "half": "test", "contender": "default", "edits": 1}
    single = {**about, "posted": 1, "live": 1.0, "seconds_p50": 2.5, "default": scores, "nulls": {"name filter": scores}}
    marks = [{"posted": 25, "live": 20, "seconds_p50": None, "default": scores, "edit in the prompt": scores}]
    (tmp_path / "ground_single_a_qa_test.json").write_text(result(single))
    (tmp_path / "ground_stream_a_qa_test.json").write_text(result({**about, "marks": marks}))

    document = render(tmp_path)

    assert (
        "| a model, qa, test | service default | 1 | 1.00 | 1.00 | – | – | – | – | 1.00 | – | – | – | 0.97 | – | 0.012 |"
        in document
    )
    assert "| a model, qa, test | *name filter* | 1 |  | 1.00 |" in document
    assert "| a model, qa, test | service default | 25 | 20 | 1.00 |" in document
    assert "*edit in the prompt*" in document


def test_a_comparison_has_a_row_a_mark_for_each_contender_and_links_its_plot(tmp_path: Path) -> None:
    figure = {"score": 0.75, "se": 0.1, "edits": 10, "n": 20}
    measures = dict.fromkeys(("kept", "wordings", "near", "same subject", "mention", "far"), figure)
    costs = {"seconds_an_edit": 2.04, "live_p50_s": 1.5, "ms_an_answer": 350.0, "peak_mb": 900.0, "cpu_s": 120.0}
    mark = {"edits": 10, "questions": 200, **measures, "portability": None, **costs}
    about = {"model": "a", "surface": "qa", "half": "test"}
    for name, more in (("errata", {"live": 9}), ("prompt", {"in_the_prompt": 8, "live_p50_s": None})):
        figures = {**about, "contender": name, "marks": [{**mark, **more}]}
        (tmp_path / f"ground_compare_a_qa_test_{name}.json").write_text(result(figures))

    document = render(tmp_path)

    shares = " | ".join(["0.75 ± 0.10"] * 6)
    assert f"| Errata | 10 | 9 |  | {shares} | 2.0 | 1.5 | 350 | 900 | 120 |" in document
    assert f"| all edits in the prompt | 10 |  | 8 | {shares} | 2.0 | – | 350 | 900 | 120 |" in document
    assert "results/ground_compare_a_qa_test.svg" in document


def test_the_weights_alone_and_chosen_streams_have_tables_of_their_own(tmp_path: Path) -> None:
    scores = summarise([ProbeScore("one", "near", True, True, 0.9)], [ProseScore("one", "human text", 0.97, 0.012)])
    about = {"model": "a model", "surface": "qa", "half": "test", "edits": 6}
    retrain = {**about, "contender": "locft_alone", "live": 6, "seconds": 81.0, "weights alone": scores, "as served": scores}
    marks = [{"posted": 6, "live": 5, "seconds_p50": 2.5, "default": scores, "name filter": scores}]
    case = {**about, "contender": "scope_always", "case": "one_city", "marks": marks}
    (tmp_path / "ground_retrain_a_qa_test.json").write_text(result(retrain))
    (tmp_path / "ground_case_one_city_a_qa_test_scope_always.json").write_text(result(case))

    document = render(tmp_path)

    prose = "0.97 | – | 0.012 | –"
    assert (
        f"| a model, qa, test | LocFT-BF, weights alone | 6 | 6 | – | – | – | – | – | 1.00 | – | – | – | {prose} | 81 |"
        in document
    )
    assert f"| a model, qa, test | LocFT-BF, as served | 6 | 6 | – | – | – | – | – | 1.00 | – | – | – | {prose} |  |" in document
    assert "| a model, qa, test, one_city | service default, `scope: always` | 6 | 5 | – |" in document


def test_what_models_know_is_one_row_for_each_surface(tmp_path: Path) -> None:
    row = {"surface": "qa", "asked": 80, "known": 30, "confident": 20, "confidence": 0.9, "development": 9, "test": 8}
    figures = {"model": "a model", "known": [{**row, "relation": "capital"}, {**row, "relation": "author", "known": 0}]}
    (tmp_path / "ground_known_a.json").write_text(result(figures))

    assert "| a model | qa | 160 | 30 | 40 | 18 + 16 | capital 30 of 80 |" in render(tmp_path)


def test_the_slope_of_the_line_is_the_cost_of_an_edit() -> None:
    line = fit_line([{"edits": edits, "seconds": 3.0 + 0.2 * edits} for edits in (50, 100, 200)])

    assert line is not None
    assert abs(line["seconds_an_edit"] - 0.2) < 1e-9
    assert abs(line["offset_s"] - 3.0) < 1e-9
    assert line["r2"] > 0.999
    assert fit_line([{"edits": 50, "seconds": 3.0}]) is None


def test_the_trainers_batches_have_every_edit_once_an_epoch() -> None:
    for epoch in trainer_batches(250):
        assert [len(batch) for batch in epoch] == [100, 100, 50]
        assert sorted(number for batch in epoch for number in batch) == list(range(250))


def test_the_difference_of_tensors_is_reported_beside_their_change() -> None:
    base = make_base()
    name, own = next((name, tensor) for name, tensor in base.model.named_parameters() if "down_proj" in name)

    result = measure_difference(base, {name: own + 0.3}, {name: own + 0.2})

    assert abs(result["largest_change"] - 0.2) < 1e-6
    assert abs(result["largest_difference"] - 0.1) < 1e-6
    assert abs(result["relative_difference"] - 0.5) < 1e-6


def test_an_attack_with_a_failure_or_a_slow_health_check_is_marked(tmp_path: Path) -> None:
    pulse = {"live_p50_ms": 3.0, "live_failures": 0, "seconds": 9.0, "at": "2026-11-29 00:01"}
    own = {"listener_p50_ms": 2.0, "listener_worst_ms": 150.4, "listener_failures": 0}
    attacks = [
        {"attack": "a flood", "held": True, "seen": "nothing", "live_worst_ms": 40.2} | own | pulse,
        {"attack": "a storm", "held": False, "seen": "it fell", "live_worst_ms": 431.0} | pulse,
        {"attack": "a thief", "held": True, "seen": "refused", "seconds": 1.0},
    ]
    (tmp_path / "hostile.json").write_text(result({"attacks": attacks}))

    document = render(tmp_path)

    assert "| a flood | yes | nothing | 3 ms | 40 ms | 2 ms | **150 ms** (short) | ≤ 100 ms | 2026-11-29 00:01 |" in document
    assert "| a storm | **no** | it fell | 3 ms | **431 ms** (short) | – | – | ≤ 100 ms |" in document
    assert "| a thief | yes | refused | – | – | – | – | ≤ 100 ms |  |" in document


def continual_mark(fits: int, reliability: float, *, running: float | None = 0.0004) -> dict[str, Any]:
    """A mark as `errata bench continual` writes it."""
    scores = {"reliability": reliability, "generality": 0.5, "locality": 0.9}
    exact = {f"{name}_exact": score / 2 for name, score in scores.items()}
    balance = {"running_squared_variation": running, "final_squared_variation": None if running is None else 0.04}
    return {"fits": fits, "edits": fits, "asked": fits, **scores, **exact, **balance, "failed_fits": 0, "seconds_an_edit": 0.47}


def test_continual_editing_is_a_mean_over_seeds_with_the_papers_rows_beside_it(tmp_path: Path) -> None:
    about = {"model": "tiny", "batch": 1, "most_asked": 200}
    paper = {"0": [continual_mark(100, 0.6), continual_mark(1000, 0.3)], "1": [continual_mark(100, 0.8)]}
    reft = {"0": [continual_mark(100, 0.5, running=None)]}
    for name, seeds in (("paper", paper), ("reft", reft)):
        (tmp_path / f"continual_tiny_{name}_batch1.json").write_text(result({**about, "contender": name, "seeds": seeds}))

    document = render(tmp_path)

    row = "| BaFT, preset `paper` | 100 | 2 | 0.70 | 0.50 | 0.90 | 0.70 | 0.35 | 0.25 | 0.45 | 0.0004 | 0.0400 | 0.47 |"
    assert row in document
    assert "| BaFT, preset `paper` | 1000 | 1 | 0.30 | 0.50 | 0.90 | 0.57 |" in document
    assert "| LLaMA 2-7b | BaFT | 1000 | 0.63 | 0.60 | 0.98 | 0.74 |" in document
    assert "| ReFT, preset `reft` | 1 | 0.50 | 0.50 | 0.90 | – | – | ReFT | 0.76 | 0.71 | 0.84 |" in document
    assert "Not run to the paper's T = 1000 with one edit a fit: `reft` (to 100)." in document
    assert "Not run: 10 edits a fit." in document


def test_load_balancing_shows_both_quantities_at_marks_with_their_range(tmp_path: Path) -> None:
    last = {
        "mean_gate": {"edits": 0.5, "rephrases": 0.4, "unrelated": 0.3},
        "reliability": 1.0,
        "generality": 0.8,
        "locality": 0.9,
    }
    rows = [
        {"variant": name, "seed": seed, "edits": edits, "running_squared_variation": 0.01 + 0.02 * seed}
        | {"final_squared_variation": 0.06 * (1 + seed), **(last if edits == 50 else {})}
        for name in ("balanced", "unbalanced", "paper_balanced", "paper_unbalanced")
        for seed in (0, 1)
        for edits in (1, 50)
    ]
    (tmp_path / "load_balance.json").write_text(result({"edits": 50, "rows": rows}))

    document = render(tmp_path)

    assert "| preset `paper` | CV², running mean | 0.0200 (0.0100 to 0.0300) | 0.0200 (0.0100 to 0.0300) |" in document
    assert "| preset `paper` | CV², final gates | 0.0900 (0.0600 to 0.1200) | 0.0900 (0.0600 to 0.1200) |" in document
    assert "| default | 0.500 | 0.400 | 0.300 | 1.00 | 0.80 | 0.90 |" in document
