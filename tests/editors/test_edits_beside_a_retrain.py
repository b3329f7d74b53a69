"""The warm-up of a retrain for edits on its tensors, while edits on the head are fitted."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.editors import protocol
from service.editors.baft.fit import fit_baft
from service.editors.baft.warm_up import warm_up
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitCancelled, Hooks
from service.lm.overlay import EMPTY, Overlay
from service.runtime.editors import bind_editors
from service.runtime.evaluator import Evaluator
from service.settings import Settings
from tests.editors.taught_model import SMALL, item, neutral, settings, taught_base, view_of

AT_ONCE = 2  # rows of one step
LONG_S = 30.0  # only a failing test takes so long
ALL = settings(preserve_pool=1_000)


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    monkeypatch.setattr(protocol, "ROWS_AT_ONCE", AT_ONCE)


def fresh() -> NeutralSentences:
    """The neutral sentences with nothing prepared."""
    return NeutralSentences(taught_base(), neutral().sentences, neutral().held_out)


def retrained(factor: float = 1.5) -> Overlay:
    name = "model.layers.1.mlp.down_proj.weight"
    return Overlay({name: factor * dict(taught_base().model.named_parameters())[name].detach()})


def prepare(sentences: NeutralSentences, overlay: Overlay, hooks: Hooks | None = None) -> None:
    warm_up(taught_base(), view_of, overlay, settings=ALL, neutral=sentences, hooks=hooks, ahead=True)


def fit(sentences: NeutralSentences, parent: Overlay = EMPTY) -> Overlay:
    return fit_baft(taught_base(), view_of, parent, [item("red is", "Z")], [], settings=ALL, neutral=sentences, seed=1).overlay


def test_an_edit_on_the_head_does_not_wait_for_a_retrains_warm_up():
    sentences, has_begun, may_go_on = fresh(), threading.Event(), threading.Event()

    def hold() -> None:
        has_begun.set()
        assert may_go_on.wait(LONG_S)

    with ThreadPoolExecutor(2) as threads:
        preparing = threads.submit(prepare, sentences, retrained(), Hooks(yield_to_answers=hold))
        assert has_begun.wait(LONG_S)
        try:
            assert threads.submit(fit, sentences).result(LONG_S).adapter is not None
            assert not preparing.done()
        finally:
            may_go_on.set()
        preparing.result(LONG_S)


def test_a_warm_up_gives_way_before_every_few_rows():
    neutral_sentences, gave = fresh(), []

    prepare(neutral_sentences, retrained(), Hooks(yield_to_answers=lambda: gave.append(1)))

    sentences = math.ceil(len(neutral_sentences.sentences) / AT_ONCE)
    assert sentences > 1
    assert len(gave) == 2 * sentences  # inputs and outputs of the upper blocks


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_cancelled_warm_up_ends_and_a_fit_computes_the_missing_values(steps):
    sentences, gave = fresh(), []
    hooks = Hooks(yield_to_answers=lambda: gave.append(1), is_cancelled=lambda: len(gave) > steps)

    with pytest.raises(FitCancelled):
        prepare(sentences, retrained(), hooks)

    assert len(gave) == steps + 1
    assert fit(sentences, retrained()).adapter is not None


def test_a_fit_gives_the_same_tensors_with_and_without_a_warm_up():
    prepared, bare = fresh(), fresh()
    prepare(prepared, retrained())

    left, right = fit(prepared, retrained()).adapter, fit(bare, retrained()).adapter

    assert left is not None and right is not None
    for block, each in left.interventions.items():
        for name, tensor in each.tensors().items():
            assert torch.equal(tensor, right.interventions[block].tensors()[name])


def test_preparing_for_edits_after_a_retrain_gives_way(tmp_path):
    base, gave = taught_base(), []
    chosen = Settings(data_dir=tmp_path, baft=SMALL, locft={"epochs": 1, "settle": 0, "block": 1})
    editors = bind_editors(base, view_of, fresh(), Evaluator(base, view_of), chosen)
    trained = editors.consolidating["locft"].fit([item("red is", "Z")], EMPTY, seed=1, hooks=Hooks())

    editors.incremental.prepare(trained.overlay, hooks=Hooks(yield_to_answers=lambda: gave.append(True)), ahead=True)

    assert gave
