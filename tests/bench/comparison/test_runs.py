"""The comparison through a real server, and what a repeated command does not run again."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.bench.comparison.contenders import COMPARED
from service.bench.comparison.runs import GroundComparison, measure_contender, run_comparison
from service.bench.comparison.tables import build_panels, build_rows
from service.bench.contenders import ON_REQUEST, build_environment
from service.bench.ground.records import Ground, write_ground
from service.bench.ground.retrain import run_retrain
from service.bench.ground.runs import GroundRun
from service.bench.ground.server import GroundServer
from service.client.errata_client import ErrataClient
from service.domain.errors import Refused
from service.lm.overlay import make_view
from service.runtime.base_model import open_base, read_fingerprint
from service.settings import load_settings
from tests.api.live_server import live_server, tiny_settings
from tests.bench.ground.test_scores import PASSAGES, make_edit, probe
from tests.builders import save_model

EDITS = [replace(make_edit(number, name), locality=(probe("near", "Spain"),)) for number, name in ((1, "France"), (2, "Italy"))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny", "llama")


@contextmanager
def ground_server(
    model: Path, data: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[GroundServer]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    own = tiny_settings(model, data)
    settings = own.model_copy(update={"window": load_settings().window}) if environment else own
    with live_server(settings) as server:
        client = ErrataClient(f"http://127.0.0.1:{server.port}")
        base, _ = open_base(settings)
        yield GroundServer(client, settings, base, make_view(base), os.getpid())


def compare(model: Path, out: Path, fingerprint: str = "a model", *, marks: tuple[int, ...] = (1, 2)) -> GroundComparison:
    ground = Ground(str(model), fingerprint, (), tuple(EDITS), PASSAGES)
    return GroundComparison(str(model), ground, EDITS, "cloze", "development", marks, 0, "auto", out)


def test_errata_and_the_base_are_asked_the_same_at_every_mark(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare(model, tmp_path)
    with ground_server(model, tmp_path / "data", {}, monkeypatch) as server:
        base = list(measure_contender(comparison, COMPARED["base"], server, ()))
        stated = list(measure_contender(comparison, COMPARED["prompt"], server, ()))
        errata = list(measure_contender(comparison, COMPARED["errata"], server, ()))

    rows = [row for name, marks in (("base", base), ("errata", errata)) for row in build_rows(name, marks)]
    assert [(row["contender"], row["edits"], row["live"], row["kept"]) for row in rows] == [
        ("base", 1, None, 0.0),
        ("base", 2, None, 0.0),
        ("errata", 1, 1, 1.0),
        ("errata", 2, 2, 1.0),
    ]
    assert [mark["questions"] for mark in base] == [mark["questions"] for mark in errata] == [3, 6]
    assert [mark["in_the_prompt"] for mark in stated] == [1, 2]
    assert all(row["ms_an_answer"] > 0 and row["cpu_s"] > 0 for row in rows)
    assert all(row["seconds_an_edit"] > 0 and row["live_p50_s"] > 0 for row in rows if row["contender"] == "errata")
    assert {line.name for line in build_panels(rows)[0].lines} == {"base model, unedited", "Errata"}


def test_the_weights_alone_answer_after_one_retrain_of_edits_that_wait(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**build_environment("locft_alone", every=2), **ON_REQUEST}
    with ground_server(model, tmp_path / "data", environment, monkeypatch) as server:
        comparison = compare(model, tmp_path)
        run = GroundRun(comparison.ground, EDITS, "cloze", "development", "locft_alone")
        run_retrain(server, run, tmp_path, "retrain", lambda _line: None)
        (mark,) = measure_contender(replace(comparison, marks=(2,), edits=EDITS), COMPARED["locft"], server, ())

    figures = _read(tmp_path / "retrain.json")
    assert figures["retrain"] == "done"
    assert figures["weights alone"]["reliability"]["score"] == 1.0
    assert figures["weights alone"]["prose, human text"]["divergence"]["score"] > 0.0
    assert (mark["retrain"], mark["kept"]["score"]) == ("done", 1.0)


def test_a_finished_mark_is_not_run_again_and_results_of_other_edits_are_refused(model: Path, tmp_path: Path) -> None:
    comparison = compare(model, tmp_path, read_fingerprint(load_settings(model=str(model))))
    write_ground(tmp_path / "ground.json", comparison.ground)
    figure = {"score": 1.0, "se": None, "edits": 1, "n": 1}
    measures = dict.fromkeys(("kept", "wordings", "near", "same subject", "mention", "far"), figure)
    mark = {"edits": 2, "questions": 6, **measures, "portability": None, "ms_an_answer": 1.0}
    comparison.write_marks("base", {2: mark}, "cpu")
    said: list[str] = []
    options: dict[str, Any] = {"surface": "cloze", "half": "development", "marks": (2,), "dtype": "auto", "say": said.append}

    run_comparison(str(model), tmp_path / "ground.json", tmp_path, ["base"], seed=0, **options)

    assert said[0] == "-- base: it is in the results already"
    assert (tmp_path / f"{comparison.name}.csv").read_text().startswith("contender,edits,questions,kept")
    with pytest.raises(Refused, match="another ground or other settings"):
        run_comparison(str(model), tmp_path / "ground.json", tmp_path, ["base"], seed=1, **options)
    with pytest.raises(Refused, match="only 2 such edits"):
        run_comparison(str(model), tmp_path / "ground.json", tmp_path, ["base"], seed=0, **{**options, "marks": (3,)})


def _read(path: Path) -> Any:
    return json.loads(path.read_text())["figures"]
