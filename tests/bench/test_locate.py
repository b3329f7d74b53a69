"""`errata locate`: which locations are swept, how they are ordered, and that an interrupted sweep goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.bench import locate
from service.cli.main import app
from service.domain.errors import Refused
from service.editors.locft.location import find_tuned_location
from service.editors.locft.settings import LocftSettings
from tests.builders import make_base, save_model

EDITS = [
    {"id": str(number), "prompt": prompt, "target": target, "rephrases": [{"prompt": f"It is said that {prompt}"}]}
    for number, (prompt, target) in enumerate([("Vienna lies in", "Graz"), ("Snow is", "black"), ("Paris lies in", "Rome")])
]
QUICK = LocftSettings(learning_rate=0.05, epochs=8, preserve_weight=0, contrast_weight=0, wordings=0)


def test_each_location_is_one_module_of_one_block() -> None:
    anatomy = make_base().anatomy
    cases = locate.list_locations(anatomy, ["down", "mlp"], [], QUICK, 3)

    places = {(place.kind, place.blocks) for case in cases for place in [find_tuned_location(anatomy, case.settings)]}  # type: ignore[arg-type]
    assert places == {(kind, (block,)) for kind in ("down", "mlp") for block in range(anatomy.depth)}


def test_a_deep_model_is_swept_at_eight_depths_the_last_block_among_them() -> None:
    assert locate.spread_blocks(3) == [0, 1, 2]
    assert locate.spread_blocks(32) == [3, 7, 11, 15, 19, 23, 27, 31]


def test_a_block_that_the_model_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="numbered from 0") as refused:
        locate.list_locations(make_base().anatomy, ["down"], [99], QUICK, 3)

    assert refused.value.field == "block"


def test_the_score_is_the_harmonic_mean_and_falls_with_the_worst_measure() -> None:
    even, uneven = ({"reliability": each, "generality": 0.5, "locality": 1.0 - each} for each in (0.5, 0.9))

    assert locate.score_of(even) == pytest.approx(0.5)
    assert locate.score_of(uneven) == pytest.approx(3 / (1 / 0.9 + 2 + 10))
    assert locate.score_of({"reliability": 0.0, "generality": 1.0, "capability": None}) == 0


def test_the_best_location_comes_first() -> None:
    rows = [{"case": name, "score": score} for name, score in (("a", 0.2), ("b", 0.9), ("c", 0.5), ("d", 0.9))]

    assert [row["case"] for row in locate.best_first(rows)] == ["b", "d", "c", "a"]


class TinySweep:
    """Sweeps of a tiny model over edits in a file, with results in one folder."""

    def __init__(self, folder: Path) -> None:
        self.model, self.file, self.out = str(save_model(folder / "tiny", "llama")), folder / "edits.json", folder / "out"
        self.write(EDITS)

    def write(self, edits: list[dict[str, Any]]) -> None:
        self.file.write_text(json.dumps(edits), encoding="utf-8")

    def run(self, blocks: list[int]) -> tuple[list[locate.Row], list[str]]:
        said: list[str] = []
        options: dict[str, Any] = {"model": self.model, "n": 3, "skip": 0, "kinds": ["down"], "settings": QUICK}
        return locate.locate(self.out, self.file, blocks=blocks, say=said.append, **options), said


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinySweep:
    monkeypatch.setattr("service.bench.bench_model.load_neutral", _few_sentences)
    return TinySweep(tmp_path)


def test_a_sweep_that_was_interrupted_goes_on_and_the_best_location_comes_first(tiny: TinySweep) -> None:
    first, _ = tiny.run([0])
    both, said = tiny.run([0, 1])

    assert said[0] == "2 locations, 1 of them measured before"
    again = next(row for row in both if row["case"] == "down of block 0")
    assert again["seconds"] == pytest.approx(first[0]["seconds"], rel=1e-3) and len(both) == 2
    assert both[0]["score"] >= both[1]["score"]
    assert locate.to_environment(both[0]) == {"ERRATA_LOCFT__KIND": "down", "ERRATA_LOCFT__BLOCK": str(both[0]["x"])}


def test_a_folder_with_a_sweep_of_other_edits_or_other_probes_is_refused_and_kept(tiny: TinySweep) -> None:
    tiny.run([0])
    before = (tiny.out / "locate_tiny.json").read_bytes()
    tiny.write([{**edit, "rephrases": [{"prompt": f"They say {edit['prompt']}"}]} for edit in EDITS])

    with pytest.raises(Refused, match="another folder"):
        tiny.run([0])

    assert (tiny.out / "locate_tiny.json").read_bytes() == before


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"figures": {"key": "a", "rows": [1, 2]}}', '{"figures": {"key": "a", "rows": [{}]}}']
)
def test_a_damaged_file_of_results_is_refused_by_name(tiny: TinySweep, content: str) -> None:
    tiny.out.mkdir()
    (tiny.out / "locate_tiny.json").write_text(content, encoding="utf-8")

    with pytest.raises(Refused, match="is no sweep"):
        tiny.run([0])


def test_a_folder_that_cannot_be_written_is_refused_before_any_training(tiny: TinySweep) -> None:
    tiny.out.write_text("a file", encoding="utf-8")

    with pytest.raises(Refused, match="cannot be written"):
        tiny.run([0])


def test_an_unknown_module_ends_the_command_with_a_sentence() -> None:
    result = CliRunner().invoke(app, ["locate", "--kind", "heart"])

    assert result.exit_code == 2
    assert "--kind must be one of down, up, mlp, attention, block" in result.output


def _few_sentences(base):  # type: ignore[no-untyped-def]
    from service.editors.neutral import NeutralSentences

    return NeutralSentences(base, (), ())
