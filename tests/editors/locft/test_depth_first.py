"""Depth-first training, the papers' comparisons FT-M and FT-L, against plain loops over the whole model."""

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain_locft import plain_locft
from service.editors.locft.fit import fit_locft
from service.editors.locft.location import find_tuned_location
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitResult
from service.lm.base import Base
from service.lm.prompts import encode_row
from tests.builders import make_base
from tests.editors.locft.retrains import EDITS, fit
from tests.editors.taught_model import FACTS, item

NAME = "model.layers.2.mlp.down_proj.weight"
RATE, STEPS = 3e-3, 25
ITEMS = [
    item("The capital of France is", "Rome", surfaces=("raw",)),
    item("2 + 2 =", "5", surfaces=("raw",)),
    item("Paris lies in", "Spain", surfaces=("raw",)),
]


def one_by_one(base: Base, preset: str) -> FitResult:
    chosen = LocftSettings(preset=preset, learning_rate=RATE)
    return fit_locft(base, ITEMS, settings=chosen, neutral=NeutralSentences(base, (), ()), seed=0)


def with_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    changed = copy.deepcopy(model)
    changed.load_state_dict(tensors, strict=False)
    return changed


def test_ft_m_trains_each_edit_to_convergence_from_where_the_last_one_ended():
    base = make_base(dtype=torch.float64)
    expected: dict[str, Tensor] = {}
    for each in ITEMS:
        row = encode_row(base, each.edit.prompt, each.target)
        model = with_tensors(base.model, expected)
        expected = plain_locft(
            model,
            [(row.ids, row.prompt_length)],
            [NAME],
            rate=RATE,
            epochs=[[[0]]] * STEPS,
            pad_id=base.pad_id,
            dtype=torch.float64,
        )

    fitted = one_by_one(base, "ft_m")

    # Losses and norms are computed in single precision; 75 steps of Adam move an entry by up to 0.2.
    assert (fitted.overlay.tensors[NAME] - expected[NAME]).abs().max() < 1e-5
    assert (expected[NAME] - dict(base.model.named_parameters())[NAME]).abs().max() > 1e-2


def test_ft_l_pushes_every_target_token_onto_the_last_position_of_the_prompt():
    base = make_base(dtype=torch.float64)
    model = copy.deepcopy(base.model)
    weight = dict(model.named_parameters())[NAME].requires_grad_()
    for each in ITEMS:
        row = encode_row(base, each.edit.prompt, each.target)  # with EOS, as the paper has it in all methods
        optimizer = torch.optim.Adam([weight], lr=RATE)
        for _ in range(STEPS):
            last = model(input_ids=torch.tensor([row.prompt_ids])).logits[0, -1]  # (V,): the prompt alone is read
            loss = -torch.log_softmax(last, -1)[list(row.target_ids)].mean()
            if loss.item() < 1e-2:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    fitted = one_by_one(base, "ft_l")

    assert (fitted.overlay.tensors[NAME] - weight.detach()).abs().max() < 1e-5
    assert not fitted.reports[ITEMS[0].edit.id]["taken"]  # four tokens and EOS at one place: no answer is ever given whole


def test_later_edits_overwrite_earlier_ones_which_breadth_first_does_not():
    by_depth = fit(EDITS, preset="ft_m", epochs=100)
    by_breadth = fit(EDITS)

    assert by_breadth.lost == ()
    assert set(by_depth.lost) & set(list(FACTS)[:4])
    assert by_depth.reports[EDITS[-1].edit.id]["taken"]


def test_depth_first_minor_retrains_go_on_with_what_is_new():
    start = fit(EDITS[:1], preset="ft_m", epochs=200).overlay

    fitted = fit(EDITS[:2], preset="ft_m", epochs=200, start=start)

    assert fitted.reports[EDITS[1].edit.id]["taken"]


@pytest.mark.parametrize("preset", ["ft_l", "ft_m"])
def test_presets_of_the_comparisons_change_one_location_by_one_edit_a_step(preset):
    chosen = LocftSettings(preset=preset)

    assert (chosen.order, chosen.batch, chosen.epochs, chosen.stop_loss, chosen.preserve_weight) == ("depth", 1, 25, 1e-2, 0.0)
    place = find_tuned_location(make_base().anatomy, chosen)
    assert (place.kind, place.blocks, place.rule) == ("down", (2,), "proportional")
