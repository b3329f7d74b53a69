"""What the meter says a version keeps."""

from collections.abc import Collection
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from service.domain.edit import Edit, EditStatus, Probe
from service.editors.neutral import cut_rows
from service.editors.protocol import FitCancelled, Hooks
from service.lm.intervention import Adapter
from service.lm.overlay import EMPTY, Overlay, compute_target_logits
from service.lm.prompts import collate
from service.lm.scoring import greedy_matches
from service.locality import calibration, meter
from service.locality.meter import LocalityMeter
from service.locality.questions import Question
from service.locality.share import mean_of, share_of
from tests.builders import make_adapter
from tests.editors.taught_model import FACTS, neutral, taught_base, view_of

QUESTIONS = [Question("letter", prompt.split()[0], (prompt,)) for prompt in FACTS]
NAMES = [question.subject for question in QUESTIONS]


def make_meter(folder: Path | None = None) -> LocalityMeter:
    made = LocalityMeter(taught_base(), view_of, QUESTIONS)
    made.set_sentences(neutral().held_out)
    if folder is not None:
        made.calibrate(folder, Hooks())
    return made


def edit(prompt: str = "red is", **more: Any) -> Edit:
    values = {"subject": "red", "target": "Z", **more}
    return Edit(prompt=prompt, id=prompt, seq=1, status=EditStatus.QUEUED, author="a", created_at=datetime.now(UTC), **values)


def changed(scale: float = 30.0) -> Overlay:
    return Overlay({}, make_adapter((1, 2), scale=scale))


def measure(made: LocalityMeter, overlay: Overlay, parent: Overlay = EMPTY, edited: Collection[str] = ()) -> dict[str, Any]:
    return made.measure(overlay, parent, [edit()], edited, Hooks())


def test_the_base_keeps_everything_and_a_wrecked_model_does_not(tmp_path: Path) -> None:
    made = make_meter(tmp_path)

    kept, wrecked = measure(made, changed(0.0)), measure(made, changed())

    assert {name: group["kept"] for name, group in kept.items()} == {"near": 1.0, "far": 1.0, "prose": 1.0}
    assert kept["prose"]["divergence"] == pytest.approx(0.0, abs=1e-6)
    assert all(group["kept"] < 1.0 for group in wrecked.values()) and wrecked["prose"]["divergence"] > 0.01
    assert wrecked["far"]["newly_lost"] == pytest.approx(1 - wrecked["far"]["kept"])


def test_far_answers_are_those_of_plain_decoding(tmp_path: Path) -> None:
    made, overlay = make_meter(tmp_path), changed()
    assert made._calibration is not None
    rows = [known.row for known in made._calibration.far]

    plain = greedy_matches(view_of(EMPTY), rows, overlay.adapter)

    assert measure(made, overlay)["far"]["kept"] == pytest.approx(sum(plain) / len(plain))
    assert [known.subject for known in made._calibration.far if known.subject]


def test_prose_is_compared_token_by_token_with_the_base() -> None:
    made, overlay = make_meter(), changed()
    kept, divergences = [], []
    for row in cut_rows(taught_base(), neutral().held_out):
        before, after = (plain_logits(row, adapter) for adapter in (None, overlay.adapter))
        old, new = before.log_softmax(-1), after.log_softmax(-1)
        kept += (before.argmax(-1) == after.argmax(-1)).tolist()
        divergences += (old.exp() * (old - new)).sum(-1).tolist()

    prose = measure(made, overlay)["prose"]

    assert prose["n"] == len(kept)
    assert prose["kept"] == pytest.approx(sum(kept) / len(kept))
    assert prose["divergence"] == pytest.approx(sum(divergences) / len(divergences), rel=1e-4)


@torch.no_grad()
def plain_logits(row: Any, adapter: Adapter | None) -> torch.Tensor:
    batch = collate(taught_base(), [row])
    return compute_target_logits(view_of(EMPTY), batch, None if adapter is None else adapter.interventions).double()


def test_what_a_live_edit_may_change_on_purpose_is_not_asked(tmp_path: Path) -> None:
    made = make_meter(tmp_path)

    all_of_them, others = measure(made, changed(0.0)), measure(made, changed(0.0), edited=NAMES[3:6])

    assert others["far"]["n"] == all_of_them["far"]["n"] - 3
    assert all_of_them["near"]["n"] == 1 and "near" not in others  # the only one in the edit's words is among the three


def test_the_answer_that_an_edit_changes_is_no_other_answer_about_its_subject() -> None:
    questions = [*QUESTIONS, Question("sky", "red", ("sky is",))]
    made = LocalityMeter(taught_base(), view_of, questions)

    groups = made.measure(changed(0.0), EMPTY, [edit()], frozenset(), Hooks())

    assert groups["same_subject"]["n"] == 1  # what is asked with "sky is" stays; "red is" is edited


def test_only_what_the_version_before_keeps_can_be_newly_lost(tmp_path: Path) -> None:
    made = make_meter(tmp_path)

    groups = measure(made, changed(), changed())

    assert groups["near"]["kept"] < 1.0
    assert {name: group["newly_lost"] for name, group in groups.items()} == dict.fromkeys(groups, 0.0)


def test_probes_posted_with_an_edit_are_a_group_of_their_own() -> None:
    made = make_meter()
    posted = edit(locality=(Probe(prompt="sky is"), Probe(prompt="sea is")))

    groups = made.measure(changed(), EMPTY, [posted], frozenset(), Hooks())

    assert groups["given"]["n"] == 2 and groups["given"]["kept"] < 1.0


def test_before_the_calibration_what_is_near_and_prose_are_measured() -> None:
    made = make_meter()

    groups = measure(made, changed())

    assert not made.is_calibrated and set(groups) == {"near", "prose"}
    assert groups["near"]["floor"] is None


def test_a_version_measured_before_the_calibration_is_measured_whole_after_it(tmp_path: Path) -> None:
    made, overlay = make_meter(), changed()
    measure(made, overlay, overlay)

    made.calibrate(tmp_path, Hooks())

    assert measure(made, overlay, overlay)["far"]["kept"] == measure(make_meter(tmp_path), overlay)["far"]["kept"]
    assert measure(made, changed(), overlay)["far"]["newly_lost"] == 0.0


def test_a_calibration_is_made_once_and_read_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_meter(tmp_path)

    def never(*_: object, **__: object) -> list:
        raise AssertionError("the base is asked again")

    monkeypatch.setattr(calibration, "find_known", never)
    again = make_meter(tmp_path)

    assert again._calibration == first._calibration
    assert measure(again, changed()) == measure(first, changed())


def test_a_damaged_calibration_is_made_again(tmp_path: Path) -> None:
    first = make_meter(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text('{"far": [[[1, "x"], 1, "", "", ""]], "floors": {}}')

    assert make_meter(tmp_path)._calibration == first._calibration


def test_sampled_answers_fill_up_where_too_few_questions_are_known(tmp_path: Path) -> None:
    made = LocalityMeter(taught_base(), view_of, QUESTIONS[:2])
    made.set_sentences(neutral().held_out)
    made.calibrate(tmp_path, Hooks())
    assert made._calibration is not None

    subjects = [known.subject for known in made._calibration.far]

    assert sorted(name for name in subjects if name) == sorted(NAMES[:2]) and "" in subjects


def test_a_measurement_can_be_cancelled(tmp_path: Path) -> None:
    made = make_meter(tmp_path)

    with pytest.raises(FitCancelled):
        made.measure(changed(), EMPTY, [edit()], frozenset(), Hooks(is_cancelled=lambda: True))


def test_of_many_edits_a_few_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = make_meter(), []

    def look(one: Edit, hooks: Hooks) -> meter.Surroundings:
        asked.append(one.prompt)
        return meter.Surroundings(None, (), (), (), ())

    monkeypatch.setattr(made, "_look_around", look)

    made.measure(changed(), EMPTY, [edit(f"{number} is") for number in range(50)], frozenset(), Hooks())

    assert len(asked) == meter.EDITS_ASKED and asked[0] == "0 is"


def test_intervals_are_wilson_s_and_those_of_a_mean_of_clusters() -> None:
    share, mean = share_of([True] * 9 + [False]), mean_of([1.0, 0.5], [10, 10])

    assert share is not None and mean is not None
    assert (share.low, share.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert (mean.kept, mean.low) == (0.75, pytest.approx(0.75 - 1.96 * sqrt(2 * 2.5**2) / 20))
    assert share_of([]) is None and mean_of([], []) is None
