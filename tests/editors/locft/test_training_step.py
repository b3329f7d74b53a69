"""A step in parts of like length: the gradient of all rows, for every reduction, and no needless passes."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.domain.errors import ServiceError
from service.editors.examples import ItemRow
from service.editors.locft import training_step
from service.editors.locft.activation_cache import ActivationCache
from service.editors.locft.packed_rows import PackedRows
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training_step import MasterWeights, Trainer
from service.editors.protocol import FitCancelled, FitFailed, Hooks
from service.lm.base import Base
from service.lm.overlay import compute_target_logits, make_view
from service.lm.prompts import Row, collate
from tests.builders import make_base, make_rows

NAME = "model.layers.2.mlp.down_proj.weight"
SHAPES = [(3, 1), (9, 3), (4, 1), (12, 2), (5, 5), (3, 1), (30, 4)]  # tokens of prompts and of targets
KEPT = [(2, 6), (2, 19), (3, 6)]


class RecordingWeights(MasterWeights):
    """Records the gradient of its step."""

    gradient: Tensor | None = None

    def descend(self) -> None:
        self.gradient = self.tensors[NAME].grad
        super().descend()


def rows_of(base: Base) -> list[Row]:
    return make_rows(base, SHAPES)


@contextmanager
def tuned(
    base: Base, rows: list[Row], kept: list[Row] | None = None, questions: list[Row] | None = None, **changes: Any
) -> Iterator[tuple[Trainer, RecordingWeights]]:
    private = make_view(base)
    store = PackedRows((ItemRow(number, row, True) for number, row in enumerate(rows)), kept or (), (), questions or ())
    settings = LocftSettings(**{"preserve_weight": 0.0, **changes})
    with ActivationCache(private, store, block=2, memory_bytes=1_000_000, disk_bytes=0) as states:
        yield (
            Trainer(private, store, states, settings, torch.Generator().manual_seed(0)),
            RecordingWeights(private, [NAME], 1e-3, {}),
        )


def plain_gradient(base: Base, rows: list[Row], reduction: str) -> Tensor:
    """The gradient of all rows in one pass through the whole model."""
    whole, batch = make_view(base), collate(base, rows)
    parameter = dict(whole.model.named_parameters())[NAME].requires_grad_()
    losses = cross_entropy(compute_target_logits(whole, batch), batch.labels, reduction="none")
    if reduction == "sample":
        losses = torch.stack([losses[batch.row_of == row].mean() for row in range(len(rows))])
    (gradient,) = torch.autograd.grad(losses.mean(), [parameter])
    return gradient


@pytest.mark.parametrize("padding", [0, 8, 10_000])
@pytest.mark.parametrize("reduction", ["sample", "token"])
def test_the_parts_of_a_step_add_up_to_all_rows_at_once(reduction, padding, monkeypatch):
    monkeypatch.setattr(training_step, "_PADDING", {"cpu": padding})
    base = make_base(dtype=torch.float64)
    rows, gave = rows_of(base), []

    with tuned(base, rows, reduction=reduction) as (trainer, master):
        step = trainer.step(master, range(len(rows)), Hooks(yield_to_answers=lambda: gave.append(1)))

    expected = plain_gradient(base, rows, reduction)
    batch = collate(base, rows)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(master.gradient, expected, rtol=0, atol=1e-7)  # losses are single, their gradients too
    if reduction == "token":
        assert step.loss == pytest.approx(
            cross_entropy(compute_target_logits(make_view(base), batch), batch.labels).item(), abs=1e-5
        )
    assert len(gave) == {0: 6, 8: 3, 10_000: 1}[padding]  # answers go first between parts too


def test_the_preserve_term_is_the_same_in_parts(monkeypatch):
    base = make_base(dtype=torch.float64)
    rows, kept = rows_of(base), make_rows(base, KEPT)
    start = {NAME: 1.2 * dict(base.model.named_parameters())[NAME]}  # elsewhere than the base, which diverges from itself nowhere
    gradients = []

    for padding in (0, 10_000):
        monkeypatch.setattr(training_step, "_PADDING", {"cpu": padding})
        with tuned(base, rows, kept, preserve_weight=3.0) as (trainer, _):
            master = RecordingWeights(trainer.view, [NAME], 1e-3, start)
            trainer.step(master, range(len(rows)), Hooks())
            gradients.append(master.gradient)
    with tuned(base, rows) as (trainer, _):
        master = RecordingWeights(trainer.view, [NAME], 1e-3, start)
        trainer.step(master, range(len(rows)), Hooks())

    assert torch.allclose(*gradients, rtol=0, atol=1e-7)
    assert (gradients[0] - master.gradient).abs().max() > 1e-3


def test_questions_are_a_term_of_their_own_beside_the_other_kept_rows():
    base = make_base(dtype=torch.float64)
    rows, kept, questions = rows_of(base), make_rows(base, KEPT[:2]), make_rows(base, KEPT[2:])
    start = {NAME: 1.2 * dict(base.model.named_parameters())[NAME]}

    def gradient(*preserved: list[Row]) -> Tensor:
        with tuned(base, rows, *preserved, preserve_weight=3.0) as (trainer, _):
            master = RecordingWeights(trainer.view, [NAME], 1e-3, start)
            trainer.step(master, range(len(rows)), Hooks())
            assert master.gradient is not None
            return master.gradient

    none, one, other = gradient([], []), gradient(kept, []), gradient([], questions)
    assert torch.allclose(gradient(kept, questions) - none, (one - none) + (other - none), rtol=0, atol=1e-7)
    assert torch.allclose(other, gradient(questions, []), rtol=0, atol=1e-7)  # weighed alike
    assert (other - none).abs().max() > 1e-3


def test_16_bit_models_accumulate_the_gradients_of_all_parts(monkeypatch):
    base = make_base(dtype=torch.bfloat16)
    rows, gradients = rows_of(base), []

    for padding in (0, 10_000):
        monkeypatch.setattr(training_step, "_PADDING", {"cpu": padding})
        with tuned(base, rows) as (trainer, master):
            trainer.step(master, range(len(rows)), Hooks())
            gradients.append(master.gradient)

    assert gradients[0].dtype == torch.float32
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()


def test_with_judge_loss_the_answers_are_not_checked(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("another pass over the vocabulary")

    monkeypatch.setattr(training_step, "answered_mask", never)
    base = make_base()
    rows = rows_of(base)

    with tuned(base, rows, judge="loss") as (trainer, master):
        step = trainer.step(master, range(len(rows)), Hooks())

    assert step.has_moved and not step.is_right.any()


def test_a_row_is_right_by_its_own_loss_and_a_batch_by_the_mean():
    base = make_base()
    rows = rows_of(base)
    batch = collate(base, rows)
    losses = cross_entropy(compute_target_logits(make_view(base), batch), batch.labels, reduction="none")
    means = torch.stack([losses[batch.row_of == row].mean() for row in range(len(rows))])
    middle = float(means.sort().values[2:4].mean())

    with tuned(base, rows, judge="loss", stop_loss=middle) as (trainer, master):
        step = trainer.step(master, range(len(rows)), Hooks())

    assert step.is_right.tolist() == (means < middle).tolist()
    assert step.has_moved == (float(means.mean()) >= middle)
    assert step.loss == pytest.approx(float(means.mean()), rel=1e-4)


def test_a_learned_batch_changes_no_weight():
    base = make_base()
    rows = rows_of(base)

    with tuned(base, rows, judge="loss", stop_loss=1e3) as (trainer, master):
        before = master.tensors[NAME].detach().clone()
        step = trainer.step(master, range(len(rows)), Hooks())

        assert not step.has_moved and step.is_right.all()
        assert master.gradient is None and torch.equal(master.tensors[NAME], before)


def most_graph_tokens(rows: list[Row], monkeypatch: pytest.MonkeyPatch, *, stop_loss: float) -> tuple[int, RecordingWeights]:
    """The most tokens with graphs at one time in a step with parts of 40 tokens, and the weights with their gradient."""
    monkeypatch.setattr(training_step, "_PART_TOKENS", 40)
    monkeypatch.setattr(training_step, "_PADDING", {"cpu": 0})
    learn, graphs, most = Trainer._learn, [], [0]

    def noting(self: Trainer, part: list[int], chosen: list[int], parameters: Any) -> tuple[Tensor, Tensor]:
        alive = sum(tokens for graph, tokens in graphs if graph() is not None)
        term, right = learn(self, part, chosen, parameters)
        tokens = sum(len(rows[place].ids) for place in part)
        graphs.append((weakref.ref(term), tokens))
        most[0] = max(most[0], alive + tokens)
        return term, right

    monkeypatch.setattr(Trainer, "_learn", noting)
    with tuned(make_base(dtype=torch.float64), rows, judge="loss", stop_loss=stop_loss) as (trainer, master):
        trainer.step(master, range(len(rows)), Hooks())
    return most[0], master


def test_a_batch_that_may_be_skipped_holds_graphs_of_at_most_one_pass():
    with pytest.MonkeyPatch.context() as patch:
        most, master = most_graph_tokens(rows_of(make_base()) * 3, patch, stop_loss=1e3)

    assert most <= 40  # of 234
    assert master.gradient is None


def test_parts_with_released_graphs_are_learned_if_a_later_part_needs_the_step():
    base = make_base(dtype=torch.float64)
    rows = rows_of(base) * 3
    batch = collate(base, rows)
    losses = cross_entropy(compute_target_logits(make_view(base), batch), batch.labels, reduction="none")
    mean = torch.stack([losses[batch.row_of == row].mean() for row in range(len(rows))]).mean().item()

    with pytest.MonkeyPatch.context() as patch:
        most, master = most_graph_tokens(rows, patch, stop_loss=0.999 * mean)  # reached by the last part alone

    assert most <= 40
    assert torch.allclose(master.gradient, plain_gradient(base, rows, "sample"), rtol=0, atol=1e-7)


def test_the_logits_of_a_part_stay_within_their_memory_limit(monkeypatch):
    base = make_base(dtype=torch.float64)
    rows, passes = rows_of(base), []
    monkeypatch.setattr(training_step, "_PADDING", {"cpu": 10_000})
    monkeypatch.setattr(training_step, "_LOGIT_BYTES", 4 * 320 * 5)  # of five tokens
    run = training_step.run_from
    monkeypatch.setattr(
        training_step, "run_from", lambda *args, **more: passes.append(args[1].batch.labels) or run(*args, **more)
    )

    with tuned(base, rows) as (trainer, master):
        trainer.step(master, range(len(rows)), Hooks())

    assert [len(labels) for labels in passes] == [3, 5, 5, 4]
    assert torch.allclose(master.gradient, plain_gradient(base, rows, "sample"), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("fault", "raised"), [("cancelled", FitCancelled), ("nan", FitFailed)])
def test_an_interrupted_step_changes_no_weight(fault: str, raised: type[ServiceError], monkeypatch):
    monkeypatch.setattr(training_step, "_PADDING", {"cpu": 0})
    base, asked = make_base(), []
    rows = rows_of(base)

    def cancelled() -> bool:
        asked.append(1)
        return fault == "cancelled" and len(asked) == 3

    with tuned(base, rows) as (trainer, master):
        if fault == "nan":
            trainer.states.batch([6])
            trainer.states._load(6).fill_(float("nan"))  # the longest row, which is in the last part
        with pytest.raises(raised):
            trainer.step(master, range(len(rows)), Hooks(is_cancelled=cancelled))

        assert len(asked) > 2
        assert torch.equal(master.tensors[NAME], dict(base.model.named_parameters())[NAME])
