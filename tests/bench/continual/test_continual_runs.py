"""Continual editing: one batch on top of the last, marks that are written at once, and runs that go on where they ended."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from service.bench.bench_model import BenchModel
from service.bench.continual.contenders import CONTENDERS
from service.bench.continual.marks import MOST_ASKED, choose_asked, measure_mark
from service.bench.continual.runs import ContinualRun
from service.bench.continual.sequential_fits import SequentialFits
from service.cli.main import app
from service.domain.errors import Refused
from service.editors.baft.settings import BaftSettings
from service.evaluation.metrics.outcomes import Reference
from service.evaluation.records import EvalProbe, Record
from service.lm.overlay import EMPTY, make_view
from service.lm.prompts import encode_row
from service.lm.scoring import gate_means
from tests.editors.taught_model import neutral, taught_base

RECORDS = [
    Record(id=prompt, prompt=prompt, target=target, subject=prompt.split()[0], locality=(EvalProbe(prompt="oak is"),))
    for prompt, target in (("red is", "Z"), ("sky is", "Y"), ("sea is", "X"), ("cat is", "W"))
]
QUICK = {"preset": "paper", "rank": 4, "learning_rate": 2e-2, "joint_learning_rate": 2e-2, "steps": 8, "joint_steps": 8}


@pytest.fixture(scope="module")
def bench_model() -> BenchModel:
    base = taught_base()
    return BenchModel("folder/Tiny", base, Reference(make_view(base)), RECORDS, [], neutral())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "service.bench.continual.runs.CONTENDERS",
        {"paper": replace(CONTENDERS["paper"], settings=QUICK), "reft": CONTENDERS["reft"]},
    )


def marks_in(folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    figures = json.loads((folder / "continual_tiny_paper_batch1.json").read_text())["figures"]
    marks: list[dict[str, Any]] = figures["seeds"][str(seed)]
    return [{name: value for name, value in mark.items() if name != "seconds_an_edit"} for mark in marks]


def start(bench_model: BenchModel, folder: Path, marks: Sequence[int] = (1, 3), batch: int = 1) -> ContinualRun:
    return ContinualRun(bench_model, folder, "paper", batch, marks)


def test_a_mark_counts_all_edits_so_far_and_is_written_before_the_next_fit(bench_model: BenchModel, tmp_path: Path) -> None:
    stream = start(bench_model, tmp_path).run(0, {})

    next(stream)
    assert [(mark["fits"], mark["edits"], mark["asked"]) for mark in marks_in(tmp_path)] == [(1, 1, 1)]
    last = next(stream)
    assert (last["fits"], last["edits"], last["asked"], last["failed_fits"]) == (3, 3, 3, 0)
    assert list(stream) == []


def test_an_interrupted_run_goes_on_to_the_figures_of_an_undisturbed_one(bench_model: BenchModel, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for seed in (0, 1):
        list(start(bench_model, whole).run(seed, start(bench_model, whole).read_finished() if seed else {}))
    list(start(bench_model, parts).run(0, {}))
    interrupted = start(bench_model, parts).run(1, start(bench_model, parts).read_finished())
    next(interrupted)
    interrupted.close()

    run = start(bench_model, parts)
    finished = run.read_finished()
    assert [run.has_all_marks(finished[seed]) for seed in "01"] == [True, False]
    list(run.run(1, finished))

    assert [marks_in(parts, seed) for seed in (0, 1)] == [marks_in(whole, seed) for seed in (0, 1)]
    assert marks_in(whole, 0) != marks_in(whole, 1)


@pytest.mark.parametrize("change", ["edits", "settings"])
def test_results_of_other_inputs_are_not_continued(
    change: str, bench_model: BenchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(start(bench_model, tmp_path, marks=[1]).run(0, {}))
    if change == "settings":
        other = replace(CONTENDERS["paper"], settings={**QUICK, "steps": 9})
        monkeypatch.setattr("service.bench.continual.runs.CONTENDERS", {"paper": other})
    else:
        bench_model = replace(bench_model, records=RECORDS[:3])

    with pytest.raises(Refused, match="another folder"):
        start(bench_model, tmp_path).read_finished()


def test_the_running_mean_is_of_gates_as_they_were_and_the_final_gates_of_the_last_fit(
    bench_model: BenchModel,
) -> None:
    fits = SequentialFits(bench_model, BaftSettings.model_validate(QUICK))
    right_after: list[dict[int, list[float]]] = []

    def read_gates(records: Sequence[Record]) -> dict[int, list[float]]:
        rows = [encode_row(bench_model.base, record.prompt, record.target, eos=False) for record in records]
        assert fits.overlay.adapter is not None
        return {block: gates.tolist() for block, gates in gate_means(bench_model.base_view, rows, fits.overlay.adapter).items()}

    for record in RECORDS:
        fits.apply([record])
        right_after.append(read_gates([record]))
    mark = measure_mark(bench_model, fits, RECORDS, seed=0)

    running = {block: [fmean(each[block][k] for each in right_after) for k in range(4)] for block in right_after[0]}
    for name, gates in (("running", running), ("final", read_gates(RECORDS))):
        by_hand = fmean(variance(weights) / fmean(weights) ** 2 for weights in gates.values())
        assert mark[f"{name}_squared_variation"] == pytest.approx(by_hand, rel=1e-3, abs=2e-6)
    assert abs(mark["running_squared_variation"] - mark["final_squared_variation"]) > 1e-4


def test_a_batch_is_one_fit_on_top_of_the_last_and_forgets_as_it_may(bench_model: BenchModel) -> None:
    fits = SequentialFits(bench_model, BaftSettings.model_validate(QUICK))

    fits.apply(RECORDS[:2])
    first = fits.overlay
    fits.apply(RECORDS[2:])

    assert fits.fits == 2
    assert fits.overlay.adapter is not None and first.adapter is not None
    assert {balance.count for balance in fits.overlay.adapter.balance.values()} == {4}
    assert {balance.count for balance in first.adapter.balance.values()} == {2}


def test_another_seed_begins_with_other_gates(bench_model: BenchModel) -> None:
    streams = [SequentialFits(bench_model, BaftSettings.model_validate(QUICK), seed=seed) for seed in (0, 0, 1)]
    for stream in streams:
        stream.apply(RECORDS[:1])

    one, same, other = [stream.overlay.adapter.to_arrays() for stream in streams if stream.overlay.adapter is not None]
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.allclose(one["adapter/1/gate"], other["adapter/1/gate"], atol=1e-2)


def test_a_fit_that_fails_is_counted_and_leaves_the_overlay(bench_model: BenchModel) -> None:
    fits = SequentialFits(bench_model, BaftSettings.model_validate({**QUICK, "learning_rate": 1e30}))

    fits.apply(RECORDS[:1])

    assert (fits.failed, fits.fits, fits.overlay) == (1, 1, EMPTY)
    assert measure_mark(bench_model, fits, RECORDS[:1], seed=0)["failed_fits"] == 1


def test_at_most_two_hundred_edits_are_asked_and_always_the_same() -> None:
    records = [replace(RECORDS[0], id=str(number)) for number in range(MOST_ASKED + 50)]

    asked = choose_asked(records, seed=3)

    assert len({record.id for record in asked}) == MOST_ASKED
    assert asked == choose_asked(records, seed=3) != choose_asked(records, seed=4)
    assert choose_asked(records[:MOST_ASKED], seed=3) == records[:MOST_ASKED]


def test_the_contenders_differ_from_the_papers_preset_in_what_their_names_say() -> None:
    paper = CONTENDERS["paper"].build_settings(192).model_dump()
    changed = {
        name: {key: value for key, value in contender.build_settings(192).model_dump().items() if value != paper[key]}
        for name, contender in CONTENDERS.items()
        if name.startswith("paper_")
    }

    assert changed["paper_no_margin"] == {"margin": False}
    assert changed["paper_subspace"] == {"gate": "subspace", "balance": "none"}
    assert changed["paper_subspace_no_margin"] == {"gate": "subspace", "balance": "none", "margin": False}
    assert changed["paper_no_balance"] == {"balance": "none"}
    for name, factor in (("paper_slower", 1 / 3), ("paper_faster", 3), ("paper_by_width", 4096 / 192)):
        assert changed[name] == pytest.approx({"learning_rate": factor * 3e-4, "joint_learning_rate": factor * 1e-4})


def test_the_command_edits_the_embedded_model_and_skips_what_is_there(tmp_path: Path) -> None:
    command = ["bench", "continual", "--contender", "reft", "--marks", "1,2", "--out", str(tmp_path)]

    first, second = (CliRunner().invoke(app, command) for _ in range(2))

    assert (first.exit_code, second.exit_code) == (0, 0)
    figures = json.loads((tmp_path / "continual_atlas_reft_batch1.json").read_text())["figures"]
    assert [mark["fits"] for mark in figures["seeds"]["0"]] == [1, 2]
    assert figures["seeds"]["0"][0]["running_squared_variation"] is None
    assert "it is in the results already" in second.stdout and "T = 2" not in second.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--marks", "1,many"], "--marks must be whole numbers of at least 1 between commas"),
        (["--seeds", ""], "--seeds must be whole numbers of at least 0 between commas"),
        (["--contender", "nobody"], "--contender must be one of default"),
        (["--marks", "1000"], "there are only 608 edits, and 1000 fits of 1 need 1000"),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_sentence(options: list[str], sentence: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "continual", "--out", str(tmp_path), *options])

    assert result.exit_code == 2
    assert sentence in result.output
