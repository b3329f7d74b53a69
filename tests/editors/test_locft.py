"""Whole retrains with LocFT-BF on a tiny model that knows eight answers, and the published loop written out again."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training import Tuning
from service.editors.protocol import FitCancelled, FitFailed, Fitted, Hooks, Item
from service.lm.overlay import EMPTY, Overlay, logits, view
from service.lm.prompts import collate, encode_row
from service.lm.score import taken
from tests.editors.lessons import FACTS, item, neutral, taught_base, view_of

EDITS = [item(prompt, target) for prompt, target in zip(FACTS, "ZYXWVUTS", strict=True)]


def fit(items: list[Item], *, seed: int = 1, hooks: Hooks | None = None, **changes) -> Fitted:
    chosen = LocftSettings(**{"learning_rate": 2e-2, "batch": 4, "preserve_rows": 4, "preserve_pool": 8, **changes})
    return fit_locft(taught_base(), items, settings=chosen, neutral=neutral(), seed=seed, hooks=hooks)


def says(overlay: Overlay, prompt: str, target: str) -> bool:
    (answer,) = taken(view_of(overlay), [encode_row(taught_base(), prompt, target)], None)
    return answer


def test_all_edits_are_taken_breadth_first():
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


def test_training_leaves_the_base_bit_identical():
    base = taught_base()
    batch = collate(base, [encode_row(base, "sky is", "B")])
    before = logits(view_of(EMPTY), batch)

    fit(EDITS[:2])

    assert torch.equal(logits(view_of(EMPTY), batch), before)


def test_the_tensors_are_a_function_of_the_live_set_alone():
    with_another = fit(EDITS[:3])
    first, second = fit(EDITS[:2]), fit(EDITS[:2])

    assert first.overlay.tensors_digest == second.overlay.tensors_digest
    assert first.overlay.tensors_digest != with_another.overlay.tensors_digest


def test_it_stops_as_soon_as_every_edit_is_answered():
    fitted = fit(EDITS[:2], epochs=60)

    assert fitted.reports["red is"]["steps"] < 60


def test_no_edits_give_the_base_tensors():
    fitted = fit([])

    assert fitted.lost == ()
    assert all(
        torch.equal(tensor, dict(taught_base().model.named_parameters())[name]) for name, tensor in fitted.overlay.tensors.items()
    )


def tuning_with(right: list[bool], judge: str) -> bool:
    """Whether a batch with these answers, whose mean loss is 0.00999, is skipped."""
    tuning = Tuning(
        view=view(taught_base()),
        names=(),
        block=2,
        rate=1e-3,
        asked=(),
        kept=(),
        settings=LocftSettings(judge=judge),
        generator=torch.Generator(),
    )
    return tuning._skips(0.00999, torch.tensor(right))


def test_one_bad_edit_among_ninety_nine_good_ones_is_not_hidden_by_the_mean():
    # methods.md 2.4: 99 samples at 0.001 and one at 0.9 have a mean of 0.00999, under the paper's threshold of 0.01.
    assert tuning_with([True] * 99 + [False], "loss")
    assert not tuning_with([True] * 99 + [False], "greedy")
    assert tuning_with([True] * 100, "greedy")


def test_an_edit_that_is_not_learned_is_reported_as_lost():
    fitted = fit(EDITS, epochs=1, learning_rate=1e-6)

    assert set(fitted.lost) == set(FACTS)
    assert not any(report["taken"] for report in fitted.reports.values())


def test_trained_rephrases_are_learned():
    fitted = fit([item("red is", "Z", rephrases=("what colour:",))], epochs=60)

    assert says(fitted.overlay, "what colour:", "Z")


def test_a_retrain_can_be_cancelled_and_shows_its_progress():
    shown = []

    with pytest.raises(FitCancelled):
        fit(EDITS, hooks=Hooks(cancelled=lambda: len(shown) > 1, progress=lambda share, _: shown.append(share)))

    assert shown == sorted(shown)
    assert all(0 <= share <= 1 for share in shown)


def test_numbers_that_are_not_finite_stop_it():
    with pytest.raises(FitFailed):
        fit(EDITS, learning_rate=3e37)


def test_the_paper_preset_is_the_published_loop():
    settings = LocftSettings(preset="paper", learning_rate=1e-2, batch=3, epochs=3)
    fitted = fit_locft(taught_base(), EDITS, settings=settings, neutral=neutral(), seed=4)

    (tensor,) = fitted.overlay.tensors.values()
    assert torch.allclose(
        tensor, published_loop("model.layers.2.mlp.down_proj.weight", rate=1e-2, batch=3, epochs=3, seed=4), atol=1e-4
    )


def published_loop(name: str, *, rate: float, batch: int, epochs: int, seed: int) -> torch.Tensor:
    """The official loop, plainly: whole model, whole sequences, per-sample mean then batch mean, skip and stop at 0.01."""
    base = taught_base()
    model = view(base).model
    weight = dict(model.named_parameters())[name]
    weight.data = weight.data.clone()
    weight.requires_grad_(True)
    optimizer = torch.optim.Adam([weight], lr=rate, weight_decay=0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(EDITS), generator=generator).tolist()
        meter = 0.0
        for start in range(0, len(order), batch):
            chosen = [EDITS[index] for index in order[start : start + batch]]
            losses = []
            for edit in chosen:
                row = encode_row(base, edit.edit.prompt, edit.target)
                out = model(input_ids=torch.tensor([row.ids])).logits[0, row.prompt_length - 1 : -1]
                losses.append(cross_entropy(out, torch.tensor(row.target_ids)))
            loss = torch.stack(losses).mean()
            meter += float(loss.detach()) * len(chosen) / len(order)
            if float(loss.detach()) >= 1e-2:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        if meter < 1e-2:
            break
    return weight.detach()
