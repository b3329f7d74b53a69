"""The papers' contrasts: what is trained in each, and what their rows and plots hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.bench import plots
from service.bench.bench_model import BenchModel, to_items
from service.bench.contrast_cases import EVERY_SURFACE, PARTS, Case
from service.bench.contrast_runs import build_panels, run_cases
from service.bench.plots import Line, Panel
from service.bench.records import load_records
from service.bench.shard_curves import run_shards, split_shards
from service.editors.locft.location import find_tuned_location
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.evaluation.capability.measure import Task
from service.evaluation.metrics.outcomes import Reference
from service.evaluation.records import EvalProbe, Record
from service.lm.overlay import make_view
from tests.builders import make_base

RECORDS = [
    Record(id=str(number), prompt=prompt, target=target, locality=(EvalProbe(prompt="Rome lies in", pool=False),))
    for number, (prompt, target) in enumerate(
        [("Vienna lies in", "Graz"), ("Snow is", "black"), ("2 + 2 =", "5"), ("Paris lies in", "Rome"), ("The sea is", "dry")]
    )
]
QUICK: dict[str, Any] = {"learning_rate": 0.05, "epochs": 40}


@pytest.fixture(scope="module")
def bench_model() -> BenchModel:
    base = make_base()
    plain = make_view(base)
    return BenchModel(
        "tiny", base, Reference(plain), RECORDS, [Task("a skill", "Rome lies in", "Italy")], NeutralSentences(base, (), ())
    )


@pytest.mark.parametrize("part", PARTS)
def test_every_case_can_be_trained_on_any_model_and_has_a_unique_name(part: str, bench_model: BenchModel) -> None:
    cases = PARTS[part](100, bench_model.base.anatomy)

    assert len({case.name for case in cases}) == len(cases)
    assert all(find_tuned_location(bench_model.base.anatomy, case.settings).names for case in cases)


def test_the_pipelines_of_a_method_differ_in_their_order_alone(bench_model: BenchModel) -> None:
    cases = {case.name: case.settings for case in PARTS["pipelines"](100, bench_model.base.anatomy)}

    for method in ("FT-L", "FT-M"):
        depth, breadth = (cases[f"{method}, {order}-first"].model_dump() for order in ("depth", "breadth"))
        assert {name for name in depth if depth[name] != breadth[name]} == {"order", "bucket", "revisit"}
        assert depth["batch"] == breadth["batch"] == 1


def test_the_published_procedure_gets_the_rate_of_a_narrow_model(bench_model: BenchModel) -> None:
    anatomy = bench_model.base.anatomy
    [paper] = [case.settings for case in PARTS["pipelines"](100, anatomy) if case.name == "LocFT-BF, preset paper"]

    assert paper.rate_of(anatomy.family, anatomy.depth, anatomy.width) == pytest.approx(5e-4 * (4096 / anatomy.width) ** 0.5)
    assert (paper.judge, paper.preserve_weight, paper.bucket) == ("loss", 0.0, 0)


def test_a_case_is_trained_on_its_own_edits_and_measured_on_them(bench_model: BenchModel) -> None:
    case = Case("a case", LocftSettings(preset="paper", **EVERY_SURFACE, **QUICK), 2, "a line")

    [row] = run_cases(bench_model, [case])

    assert (row["case"], row["edits"], row["epochs"])[:2] == ("a case", 2)
    assert row["reliability"] == 1.0
    assert 0.0 <= row["reliability_tokens"] <= 1.0
    assert row["locality_inside"] is None
    assert row["locality_outside"] is not None


def test_shards_not_trained_yet_have_no_score(bench_model: BenchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bench.shard_curves.EPOCHS", (1, 2))
    monkeypatch.setattr("service.bench.shard_curves.DEPTH", LocftSettings(preset="ft_m", **EVERY_SURFACE, **QUICK))

    rows = list(run_shards(bench_model, 5))

    depth = [row for row in rows if row["order"] == "depth-first"]
    assert [sum(row[f"shard_{number}"] is not None for number in range(1, 6)) for row in depth] == [1, 2, 3, 4, 5]
    assert depth[0]["shard_1"] == 1.0
    assert [row["at"] for row in rows if row["order"] == "breadth-first"] == [1, 2]


def test_items_are_in_the_order_of_the_edits_without_open_probes() -> None:
    trained_record = replace(RECORDS[0], rephrases=(EvalProbe(prompt="Where is Vienna? In", train=True),))

    items = to_items([trained_record, RECORDS[1]])

    assert [(item.edit.seq, item.target) for item in items] == [(1, "Graz"), (2, "black")]
    assert not any(probe.train for probe in items[0].edit.rephrases)


def test_cases_with_an_x_are_curves_and_the_others_are_points() -> None:
    rows = [
        {"case": "a", "line": "one", "x": x, **dict.fromkeys(("reliability", "generality", "locality", "capability"), 0.5)}
        for x in (1.0, 4.0)
    ]
    points = [row | {"x": None, "line": name} for row, name in zip(rows, "ab", strict=True)]

    assert build_panels("batches", rows)[0].lines == [Line("one", [1.0, 4.0], [0.5, 0.5])]
    assert build_panels("locations", points)[0].lines == [Line("a", [1.0], [0.5]), Line("b", [2.0], [0.5])]


def test_the_same_figures_give_the_same_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    panels = [Panel("retention", "edits", "share", [Line("a", [1, 2, 3], [1.0, None, 0.5])], aim=0.9)]

    for name in ("one.svg", "two.svg"):
        assert plots.draw(tmp_path / name, panels)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(("n", "sizes"), [(5, [1, 1, 1, 1, 1]), (6, [1, 1, 1, 1, 2]), (100, [20] * 5)])
def test_five_shards_contain_every_record(n: int, sizes: list[int]) -> None:
    records = load_records(None, n=n)

    shards = split_shards(records)

    assert [len(shard) for shard in shards] == sizes
    assert [record for shard in shards for record in shard] == records
