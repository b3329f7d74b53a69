"""Whole retrains with LocFT-BF on a tiny model that has eight known answers."""

from dataclasses import replace
from itertools import groupby

import pytest
import torch

from service.domain.edit import Probe
from service.editors import examples
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training_step import MasterWeights, can_skip
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitCancelled, FitFailed, Hooks
from service.lm.overlay import EMPTY, Overlay, compute_logits, make_view
from service.lm.prompts import collate, encode_row
from service.lm.scoring import greedy_matches, row_losses
from tests.builders import make_base
from tests.editors.locft.retrains import EDITS, fit, says
from tests.editors.taught_model import FACTS, item, neutral, taught_base, view_of


def test_breadth_first_training_learns_all_edits():
    fitted = fit(EDITS, epochs=60)

    assert fitted.lost == ()
    assert fitted.scores["retention"] == 1.0
    assert all(says(fitted.overlay, edit.edit.prompt, edit.target) for edit in EDITS)


def test_only_the_tensors_of_the_location_are_replaced_and_there_is_no_adapter():
    fitted = fit(EDITS[:2])

    assert set(fitted.overlay.tensors) == {"model.layers.2.mlp.down_proj.weight"}
    assert fitted.overlay.adapter is None


@pytest.mark.parametrize("kind", ["down", "up", "mlp", "attention", "block"])
def test_every_kind_of_location_can_be_tuned(kind):
    base = taught_base()
    fitted = fit(EDITS[:1], kind=kind, block=1, epochs=30, learning_rate=5e-3)

    assert fitted.lost == ()
    assert all(name.startswith(base.anatomy.block_prefix(1)) for name in fitted.overlay.tensors)


@pytest.mark.parametrize(
    ("family", "kind", "changes"),
    [
        ("gptj", "down", {}),
        ("gpt_oss", "attention", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}),
    ],
)
def test_models_whose_blocks_or_mlps_return_tuples_learn_edits(family, kind, changes):
    base = make_base(family, **changes)
    items = [item("Paris lies in", "Rome", surfaces=("raw",)), item("Snow lies in", "Bonn", surfaces=("raw",))]
    chosen = LocftSettings(kind=kind, learning_rate=1e-2, batch=2, epochs=60, cooldown=0)

    fitted = fit_locft(base, items, settings=chosen, neutral=NeutralSentences(base, (), ()), seed=1)

    assert fitted.lost == ()
    assert greedy_matches(
        make_view(base, fitted.overlay.tensors), [encode_row(base, each.edit.prompt, each.target) for each in items], None
    ) == [
        True,
        True,
    ]


def test_training_leaves_the_base_bit_identical():
    base = taught_base()
    batch = collate(base, [encode_row(base, "sky is", "B")])
    before = compute_logits(view_of(EMPTY), batch)

    fit(EDITS[:2])

    assert torch.equal(compute_logits(view_of(EMPTY), batch), before)


def test_the_tensors_are_a_function_of_the_live_set_alone():
    with_another = fit(EDITS[:3])
    first, second = fit(EDITS[:2]), fit(EDITS[:2])

    assert first.overlay.tensors_digest == second.overlay.tensors_digest
    assert first.overlay.tensors_digest != with_another.overlay.tensors_digest


def test_training_stops_as_soon_as_every_edit_is_answered():
    fitted = fit(EDITS[:2], epochs=60)

    assert fitted.reports["red is"]["epochs"] < 60


def test_no_edits_give_the_base_tensors():
    fitted = fit([])

    assert fitted.lost == ()
    assert all(
        torch.equal(tensor, dict(taught_base().model.named_parameters())[name]) for name, tensor in fitted.overlay.tensors.items()
    )


def test_one_bad_edit_among_ninety_nine_good_ones_is_not_hidden_by_the_mean():
    # Ninety-nine samples at 0.001 and one at 0.9 have a mean of 0.00999, under the paper's threshold of 0.01.
    by_loss, by_answer = LocftSettings(judge="loss"), LocftSettings(judge="greedy")

    assert can_skip(by_loss, 0.00999, torch.tensor([True] * 99 + [False]))
    assert not can_skip(by_answer, 0.00999, torch.tensor([True] * 99 + [False]))
    assert can_skip(by_answer, 0.00999, torch.tensor([True] * 100))


def test_an_unlearned_edit_is_reported_as_lost():
    fitted = fit(EDITS, epochs=1, learning_rate=1e-6)

    assert set(fitted.lost) == set(FACTS)
    assert not any(report["taken"] for report in fitted.reports.values())


def test_trained_rephrases_are_learned():
    fitted = fit([item("red is", "Z", rephrases=("what colour:",))], epochs=60)

    assert says(fitted.overlay, "what colour:", "Z")


def test_a_rephrase_is_learned_with_its_own_answer():
    given = item("red is", "Z")
    own = Probe(prompt="what colour:", answer="Y", train=True)

    fitted = fit([replace(given, edit=replace(given.edit, rephrases=(own,)))], cooldown=0)

    assert says(fitted.overlay, "red is", "Z") and says(fitted.overlay, "what colour:", "Y")


def test_a_rephrase_beyond_the_context_is_omitted_and_reported_and_the_rest_learned():
    fitted = fit([item("red is", "Z", rephrases=("b" * 200, "what colour:")), EDITS[1]], cooldown=0)

    assert fitted.lost == ()
    assert says(fitted.overlay, "what colour:", "Z")
    assert fitted.scores["rephrases_left_out"] == 1


def test_a_rephrase_that_is_another_edits_prompt_keeps_that_edits_answer():
    fitted = fit([item("red is", "Z", rephrases=(" sky  is",)), item("sky is", "Y")], cooldown=0)

    assert fitted.lost == ()
    assert says(fitted.overlay, "sky is", "Y")
    assert fitted.reports["red is"]["epochs"] < 60  # of 100: nothing was fought over
    assert fitted.scores["rephrases_left_out"] == 1


def test_the_scores_hold_the_number_of_neutral_rows():
    drawn, left = (
        fit([item("red is", "Z", subject=subject)], preserve_pool=100, epochs=1).scores["neutral_rows"]
        for subject in ("is", neutral().sentences[0].text)
    )

    assert drawn == len(neutral().sentences)  # "is" tells nothing
    assert left < drawn
    assert fit(EDITS[:1], preserve_weight=0.0).scores["neutral_rows"] == 0


def test_progress_never_goes_back_and_names_each_part_of_the_work():
    shown: list[tuple[float, str]] = []

    hooks = Hooks(progress=lambda *told: shown.append(told))
    fit(EDITS[:2], prompts=("cow is",), hooks=hooks, preserve_questions=2)

    shares, stages = [share for share, _ in shown], list(dict.fromkeys(stage for _, stage in shown))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert stages == [
        "reading",
        "writing questions",
        "asking the base model what must stay",
        "epochs",
        "cooldown",
        "asking every edit once more",
    ]
    assert max(share for share, stage in shown if stage == "cooldown") > min(
        share for share, stage in shown if stage == "cooldown"
    )


def test_progress_never_goes_back_if_the_cooldown_loses_edits():
    shown: list[tuple[float, str]] = []
    firmly = {"preserve_weight": 30.0, "stop_margin": 0.1}

    fit(EDITS, **firmly, hooks=Hooks(progress=lambda *told: shown.append(told)))

    shares, stages = [share for share, _ in shown], [stage for stage, _ in groupby(stage for _, stage in shown)]
    assert stages[-4:-1] == ["epochs", "cooldown", "epochs"]
    assert shares == sorted(shares)


@pytest.mark.parametrize("stage", ["reading", "writing questions", "asking the base model what must stay", "epochs", "cooldown"])
def test_a_retrain_can_be_cancelled_in_every_part_of_it(stage):
    shown: list[str] = []

    with pytest.raises(FitCancelled):
        fit(
            EDITS[:2],
            prompts=("cow is",),
            hooks=Hooks(is_cancelled=lambda: stage in shown, progress=lambda _, stage: shown.append(stage)),
            preserve_questions=2 if stage == "writing questions" else 0,
        )

    assert shown[-1] == stage


def test_reading_gives_way_between_rows_and_between_decoded_answers(monkeypatch):
    monkeypatch.setattr(examples, "_ANSWER_TOKENS", 2)
    probes = tuple(f"thing {number} is" for number in range(130))
    given = [EDITS[0], item("sky is", "Y", locality=probes), *(item(f"{number} is", "Z") for number in range(130))]
    stages: list[str] = [""]
    gave: list[str] = []

    with pytest.raises(FitCancelled):
        fit(
            given,
            hooks=Hooks(
                yield_to_answers=lambda: gave.append(stages[-1]),
                progress=lambda _, stage: stages.append(stage),
                is_cancelled=lambda: stages[-1] == "epochs",
            ),
        )

    assert gave[:-1] == ["reading"] * 3 + ["asking the base model what must stay"] * 3


def test_numbers_that_are_not_finite_stop_a_retrain():
    with pytest.raises(FitFailed):
        fit(EDITS, learning_rate=3e37)


def test_small_steps_add_up_although_the_model_serves_in_16_bits():
    name = "model.layers.2.mlp.down_proj.weight"
    own = make_view(make_base(dtype=torch.bfloat16))
    served = dict(own.model.named_parameters())[name]
    master = MasterWeights(own, [name], 1e-5, {})

    def moved() -> float:
        return float((master.served_tensors()[name] != served).float().mean())

    shares = []
    for _ in range(100):
        master.served_tensors()[name].sum().backward()
        master.descend()
        shares.append(moved())

    # A step is a hundredth of what tells two 16-bit numbers of this size apart: only a sum of many shows.
    assert shares[0] < 0.1 and shares[-1] > 0.5
    assert master.tensors[name].dtype == torch.float32 and master.copy_weights()[name].dtype == torch.bfloat16


def test_the_cooldown_restores_other_answers_and_keeps_the_edits():
    """After a few edits the model is nearer to the base on the kept sentences."""
    firmly = {"preserve_weight": 5.0, "preserve_rows": 12, "prompts": tuple(FACTS)[2:]}
    without, consolidated = (fit(EDITS[:2], cooldown=steps, **firmly) for steps in (0, 30))

    def divergence(overlay: Overlay) -> float:
        rows = [encode_row(taught_base(), prompt, answer) for prompt, answer in list(FACTS.items())[2:]]
        return float(row_losses(view_of(overlay), rows, None).mean())

    assert without.lost == consolidated.lost == ()
    assert divergence(consolidated.overlay) < divergence(without.overlay)
