"""Minor retrains: from the tensors of a version, on new edits and a sample of the consolidated ones."""

from dataclasses import replace

import pytest

from service.domain.errors import Refused
from service.editors.protocol import FitItem
from service.lm.overlay import EMPTY, Overlay
from tests.editors.locft.retrains import EDITS, fit, says
from tests.editors.taught_model import FACTS, item

OLD, NEW = EDITS[:5], EDITS[5:]


def consolidated(items: list[FitItem]) -> list[FitItem]:
    return [replace(each, is_consolidated=True) for each in items]


def started() -> Overlay:
    fitted = fit(OLD)
    assert fitted.lost == ()
    return fitted.overlay


@pytest.mark.parametrize("replay", [0.0, 1.0])
def test_a_minor_retrain_learns_new_edits_and_keeps_consolidated_ones(replay):
    """Without replay too, all edits are verified in the end, and lost edits are trained again."""
    start = started()

    fitted = fit([*consolidated(OLD), *NEW], start=start, replay=replay)

    assert fitted.lost == () and fitted.scores["retention"] == 1.0
    assert all(says(fitted.overlay, edit.edit.prompt, edit.target) for edit in EDITS)
    assert set(fitted.reports) == {each.edit.id for each in NEW}
    assert {report["mode"] for report in fitted.reports.values()} == {"minor"}


def test_without_replay_and_verification_consolidated_edits_are_lost():
    """The test above is meaningful: training on new edits alone overwrites."""
    fitted = fit([*consolidated(OLD), *NEW], start=started(), replay=0.0, minor_rate=1.0, epochs=60, judge="loss", stop_loss=1e-9)

    assert {each.edit.id for each in OLD} & set(fitted.lost)
    assert set(fitted.lost) <= {each.edit.id for each in EDITS}


def test_a_minor_retrain_does_not_change_its_start_and_repeats_bit_for_bit():
    start = started()
    before = start.tensors_digest

    first, second = (fit([*consolidated(OLD), *NEW], start=start) for _ in range(2))

    assert start.tensors_digest == before
    assert first.overlay.tensors_digest == second.overlay.tensors_digest != before


def test_a_minor_retrain_of_nothing_new_leaves_the_tensors_alone():
    start = started()

    assert fit(consolidated(OLD), start=start).overlay.tensors_digest == start.tensors_digest


def test_a_start_from_another_location_is_refused():
    with pytest.raises(Refused) as caught:
        fit(EDITS, start=started(), block=1)
    assert caught.value.field == "start"


def test_from_the_base_no_edit_counts_as_consolidated():
    assert fit(consolidated(EDITS)).overlay.tensors_digest == fit(EDITS).overlay.tensors_digest


def test_the_kept_answers_are_the_bases_and_not_the_starts():
    start = fit([item("sea is", "Y"), *OLD[:1]]).overlay
    assert says(start, "sea is", "Y")

    kept = {"judge": "loss", "stop_loss": 1e-9, "epochs": 60, "preserve_weight": 20.0, "preserve_pool": 1}
    fitted = fit(OLD[:1], start=start, prompts=("sea is",), **kept)

    assert says(fitted.overlay, "sea is", FACTS["sea is"])
    assert fitted.lost == ()


def test_real_prompts_are_kept_as_the_base_answers_them():
    prompts = tuple(prompt for prompt in FACTS if prompt != "red is")
    firmly = {"preserve_weight": 5.0, "preserve_rows": 12, "learning_rate": 5e-3}
    without, kept = (fit(EDITS[:1], prompts=given, **firmly).overlay for given in ((), prompts))

    def stay(overlay: Overlay) -> int:
        return sum(says(overlay, prompt, FACTS[prompt]) for prompt in prompts)

    assert stay(EMPTY) == stay(kept) == len(prompts)
    assert stay(without) <= stay(kept)
    assert says(kept, "red is", "Z")


def test_a_real_prompt_that_asks_what_an_edit_changes_is_not_kept():
    kept = {"preserve_weight": 50.0, "preserve_rows": 12}
    asked = item("red is", "Z", subject="red")

    fitted = fit([asked], prompts=("red is", "What is RED?", "  red  is "), **kept)

    assert fitted.lost == ()
    assert fitted.overlay.tensors_digest == fit([asked], **kept).overlay.tensors_digest
