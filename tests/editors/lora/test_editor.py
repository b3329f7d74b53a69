"""Retrains by LoRA on a tiny model that has eight known answers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.editors.locft.training_step import MasterWeights
from service.editors.lora.low_rank import LowRank
from service.editors.lora.settings import LoraSettings
from service.editors.lora.weights import LowRankWeights
from service.editors.protocol import ConsolidatingEditor, EditorContext, FitItem, FitResult, Hooks, StartElsewhere
from service.editors.registry import find_method
from service.lm.checkpoint import load, save
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.components import make_dense
from service.lm.overlay import EMPTY, Overlay, make_view
from service.lm.weights import read_weight
from tests.builders import make_base
from tests.editors.locft.retrains import EDITS, says
from tests.editors.taught_model import neutral, taught_base, view_of

NAME = "model.layers.2.mlp.down_proj.weight"


def make_settings(**changes: Any) -> LoraSettings:
    place = {} if "block" in changes else {"position": "published"}
    small = {
        "rank": 8,
        "learning_rate": 2e-2,
        "batch": 4,
        "preserve_rows": 4,
        "preserve_pool": 8,
        "epochs": 60,
        "preserve_questions": 0,
    }
    return LoraSettings(**{**place, **small, **changes})


def open_editor(**changes: Any) -> ConsolidatingEditor:
    editor: ConsolidatingEditor = find_method("lora").open_editor(
        EditorContext(taught_base(), view_of, neutral()), make_settings(**changes)
    )
    return editor


def fit(items: list[FitItem], start: Overlay = EMPTY, *, seed: int = 1, **changes: Any) -> FitResult:
    return open_editor(**changes).fit(items, start, seed=seed, hooks=Hooks())


def pair_of(overlay: Overlay) -> LowRank:
    pair = overlay.tensors[NAME]
    assert isinstance(pair, LowRank)
    return pair


def test_lora_learns_all_edits_and_says_by_which_method() -> None:
    fitted = fit(EDITS)

    assert fitted.lost == ()
    assert all(says(fitted.overlay, edit.edit.prompt, edit.target) for edit in EDITS)
    assert {report["method"] for report in fitted.reports.values()} == {"lora"}


def test_the_overlay_holds_a_pair_of_the_rank_and_nothing_else() -> None:
    fitted = fit(EDITS[:2], rank=3)

    assert set(fitted.overlay.tensors) == {NAME} and fitted.overlay.adapter is None
    own = read_weight(taught_base().model, NAME)
    change = make_dense(fitted.overlay.tensors[NAME], own) - own
    assert pair_of(fitted.overlay).rank == 3
    assert int(torch.linalg.matrix_rank(change.double(), rtol=1e-5)) <= 3


def test_the_same_retrain_gives_the_same_file(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert save(fit(EDITS[:3]).overlay, folder) == save(fit(EDITS[:3]).overlay, folder)
    assert save(fit(EDITS[:3]).overlay, folder) != save(fit(EDITS[:3], seed=2).overlay, folder)


def test_a_pair_answers_the_same_after_a_restart(tmp_path: Path) -> None:
    fitted = fit(EDITS)

    folder = CheckpointFolder(tmp_path)
    again = load(folder, save(fitted.overlay, folder))

    assert again.tensors_digest == fitted.overlay.tensors_digest
    assert all(says(again, edit.edit.prompt, edit.target) for edit in EDITS)


def test_training_begins_at_the_base_s_own_weights() -> None:
    private = make_view(taught_base())
    weights = LowRankWeights(private, [NAME], 1e-2, {}, torch.Generator().manual_seed(0), rank=4, scale=2.0)

    assert torch.equal(weights.served_tensors()[NAME], read_weight(private.model, NAME))


def test_the_served_weights_are_those_that_the_overlay_serves() -> None:
    private = make_view(make_base("llama", dtype=torch.bfloat16))
    weights = LowRankWeights(private, [NAME], 1e-2, {}, torch.Generator().manual_seed(0), rank=4, scale=2.0)
    for tensor in weights.tensors.values():
        tensor.data.normal_(generator=torch.Generator().manual_seed(1))

    served = weights.served_tensors()[NAME]

    view = make_view(private.base, weights.copy_weights())
    assert served.dtype == torch.bfloat16 and torch.equal(served, read_weight(view.model, NAME))


def test_the_gradient_of_the_pair_is_that_of_the_product() -> None:
    private = make_view(taught_base())
    weights = LowRankWeights(private, [NAME], 1e-2, {}, torch.Generator().manual_seed(0), rank=4, scale=2.0)
    weights.tensors[f"{NAME}/left"].data.normal_(generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(read_weight(private.model, NAME).shape, generator=torch.Generator().manual_seed(2))

    served = weights.served_tensors()[NAME]
    for share in (0.25, 0.75):  # two passes, as of two parts of a batch
        (served * upstream * share).sum().backward()
    weights.carry_gradients()

    left, right = (weights.tensors[f"{NAME}/{side}"] for side in ("left", "right"))
    torch.testing.assert_close(left.grad, 2.0 * upstream @ right.detach().T)
    torch.testing.assert_close(right.grad, 2.0 * left.detach().T @ upstream)


def test_parameters_that_are_no_matrices_stay_the_base_s() -> None:
    fitted = fit(EDITS[:1], kind="block", block=1, learning_rate=5e-3)

    assert fitted.lost == ()
    assert not any("norm" in name for name in fitted.overlay.tensors)
    assert all(isinstance(weight, LowRank) for weight in fitted.overlay.tensors.values())


def test_a_minor_retrain_continues_with_the_pair_that_it_starts_from() -> None:
    first = fit(EDITS[:4])
    known = [FitItem(edit.edit, edit.target, is_consolidated=True) for edit in EDITS[:4]]

    second = fit([*known, *EDITS[4:6]], first.overlay)

    assert second.lost == ()
    assert {report["mode"] for report in second.reports.values()} == {"minor"}
    assert not torch.equal(pair_of(first.overlay).left, pair_of(second.overlay).left)


@pytest.mark.parametrize(
    "start",
    [
        lambda: Overlay({NAME: read_weight(taught_base().model, NAME)}),
        lambda: fit(EDITS[:1], rank=2).overlay,
        lambda: fit(EDITS[:1], scale=1.0).overlay,
        lambda: fit(EDITS[:1], block=1).overlay,
    ],
    ids=["whole tensors", "another rank", "another scale", "another block"],
)
def test_a_minor_retrain_does_not_start_from_other_tensors(start: Any) -> None:
    with pytest.raises(StartElsewhere):
        fit(EDITS[:2], start())


def test_locft_starts_a_minor_retrain_from_the_merged_weights_of_a_pair() -> None:
    private, pairs = make_view(taught_base()), fit(EDITS[:2]).overlay.tensors

    weights = MasterWeights(private, [NAME], 1e-3, pairs)

    assert torch.equal(weights.copy_weights()[NAME], make_dense(pairs[NAME], read_weight(private.model, NAME)))
