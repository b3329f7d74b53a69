"""Overlays against hooks on a copy of the model; the base never changes."""

import copy
import gc
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.blocks import Location, anatomy_of
from service.lm.intervention import Adapter, Intervention
from service.lm.overlay import (
    Call,
    Recording,
    apply_lm_head,
    call_context,
    compute_logits,
    compute_target_logits,
    make_view,
)
from service.lm.prompts import Batch, collate
from tests.builders import FAMILIES, intervention_context, make_adapter, make_base, make_intervention, make_rows, tuned_kind
from tests.hooks import find_hooked_modules

SHAPES = [(6, 3), (1, 2), (12, 4), (2, 5), (3, 1)]  # prompts of 1, 2 and 3 tokens among them


def base_logits(base: Base, batch: Batch) -> Tensor:
    """The base model itself, called as transformers' documentation says."""
    with torch.no_grad():
        return base.model(
            input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
        ).logits


def hooked_logits(base: Base, batch: Batch, adapter: Adapter, replaced: Mapping[str, Tensor]) -> Tensor:
    """The same with an overlay, made another way: a full copy of the model, weights written in place, ordinary hooks."""
    model = copy.deepcopy(base.model)
    for name, tensor in replaced.items():
        model.get_parameter(name).data.copy_(tensor)

    def hook(intervention: Intervention) -> object:
        def moved(module: object, inputs: object, out: Any) -> Any:
            bare = out[0] if isinstance(out, tuple) else out
            changed = intervention(bare, batch.positions)
            return (changed, *out[1:]) if isinstance(out, tuple) else changed

        return moved

    for block, intervention in adapter.interventions.items():
        anatomy_of(model).blocks[block].register_forward_hook(hook(intervention))
    with torch.no_grad():
        return model(
            input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
        ).logits


def some_tensors(base: Base, *, block: int = 2, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    own = dict(base.model.named_parameters())
    names = base.anatomy.parameters_at(Location(tuned_kind(base.anatomy.family), block))
    return {name: own[name] + 0.2 * torch.randn(own[name].shape, generator=generator) for name in names}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_overlay_computes_the_same_as_hooks_on_a_rewritten_copy(family: str, side: str) -> None:
    base, adapter = make_base(family), make_adapter((0, 2, 3))
    batch, tensors = collate(base, make_rows(base, SHAPES), side=side), some_tensors(base)  # type: ignore[arg-type]

    got = compute_logits(make_view(base, tensors), batch, adapter.interventions)

    want = hooked_logits(base, batch, adapter, tensors)
    assert not torch.allclose(want, base_logits(base, batch), atol=0.1)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_view_without_an_overlay_and_a_fresh_adapter_give_the_bases_bits(family: str) -> None:
    base = make_base(family)
    batch, want = collate(base, make_rows(base, SHAPES)), None

    want = base_logits(base, batch)

    assert torch.equal(compute_logits(make_view(base), batch), want)
    assert torch.equal(compute_logits(make_view(base), batch, make_adapter(scale=0.0).interventions), want)


def test_a_failing_call_leaves_the_base_and_the_view_unchanged() -> None:
    base = make_base()
    view, batch = make_view(base), collate(base, make_rows(base, SHAPES))
    want = base_logits(base, batch)
    broken = {1: make_adapter().interventions[1], 2: make_intervention(width=16)}  # fails in block 2, after block 1

    with pytest.raises(RuntimeError):
        compute_logits(view, batch, broken)
    with pytest.raises(KeyError), intervention_context(make_adapter().interventions, batch.positions):
        raise KeyError

    assert torch.equal(compute_logits(view, batch), want)
    assert torch.equal(base_logits(base, batch), want)
    assert not find_hooked_modules(base.model)


def test_making_and_using_views_writes_no_base_tensor_and_leaves_no_hook() -> None:
    base = make_base()
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}

    view = make_view(base, some_tensors(base))
    compute_logits(view, collate(base, make_rows(base, SHAPES)), make_adapter().interventions)

    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    assert not find_hooked_modules(base.model)


def test_a_view_shares_every_tensor_but_the_replaced_ones() -> None:
    base = make_base()
    tensors = some_tensors(base)

    own, seen = dict(base.model.named_parameters()), dict(make_view(base, tensors).model.named_parameters())

    assert {name for name in own if own[name].data_ptr() != seen[name].data_ptr()} == set(tensors)
    assert not any(parameter.requires_grad for parameter in seen.values())


def test_writing_to_an_overlays_tensor_later_does_not_change_the_view() -> None:
    base = make_base()
    tensors = some_tensors(base)
    view, batch = make_view(base, tensors), collate(base, make_rows(base, SHAPES))
    want = compute_logits(view, batch)

    for tensor in tensors.values():
        tensor.zero_()

    assert torch.equal(compute_logits(view, batch), want)


def test_the_tensors_of_an_unused_view_are_freed_at_once() -> None:
    base = make_base()
    name, tensor = next(iter(some_tensors(base).items()))
    view = make_view(base, {name: tensor})
    compute_logits(view, collate(base, make_rows(base, SHAPES)))
    replaced = weakref.ref(view.model.get_parameter(name))
    gc.collect()
    gc.disable()

    del view

    gc.enable()
    assert replaced() is None


def test_views_have_equal_digests_only_for_equal_tensors() -> None:
    base = make_base()
    first, same, other = some_tensors(base), some_tensors(base), some_tensors(base, seed=2)
    digests = [make_view(base, tensors).tensors_digest for tensors in (first, same, other, {})]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_replaced_tensors_with_a_wrong_name_or_shape_are_refused() -> None:
    base = make_base()
    good = some_tensors(base)
    name = next(iter(good))
    wrong: list[dict[str, Tensor]] = [
        {"model.embed_tokens.weight": torch.zeros(320, 32)},
        {"lm_head.weight": torch.zeros(320, 32)},
        {"model.layers.2.mlp.no_such.weight": good[name]},
        {name: good[name][:-1]},
        {name: good[name].long()},
    ]
    for tensors in wrong:
        with pytest.raises(Refused):
            make_view(base, tensors)


def test_only_the_rows_and_positions_of_the_mask_change() -> None:
    base = make_base()
    view, batch = make_view(base), collate(base, make_rows(base, [(6, 3), (6, 3)]))
    only_second = batch.positions & torch.tensor([[False], [True]])

    with intervention_context(make_adapter().interventions, only_second):
        got = view.model(input_ids=batch.ids, attention_mask=batch.attention.long(), use_cache=False).logits

    want = base_logits(base, batch)
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(got[1, :3], want[1, :3], rtol=0, atol=1e-6)
    assert bool(((got[1, 3:] - want[1, 3:]).abs().amax(-1) > 1e-3).all())


def test_bos_is_never_intervened() -> None:
    base = make_base()
    batch = collate(base, make_rows(base, [(1, 1), (2, 1), (3, 1)]))
    got = compute_logits(make_view(base), batch, make_adapter(range(4)).interventions)
    torch.testing.assert_close(got[:, 0], base_logits(base, batch)[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen2_moe"])
def test_target_logits_are_those_of_all_positions_and_of_the_head_on_final_states(family: str) -> None:
    base, adapter = make_base(family), make_adapter()
    view, batch = make_view(base), collate(base, make_rows(base, SHAPES))

    recording = Recording()
    got = compute_target_logits(view, batch, adapter.interventions, recording=recording)

    everything = compute_logits(view, batch, adapter.interventions)
    want = torch.cat([everything[i, r.prompt_length - 1 : len(r.ids) - 1] for i, r in enumerate(make_rows(base, SHAPES))])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert recording.final is not None
    torch.testing.assert_close(apply_lm_head(view, recording.final), got, rtol=0, atol=1e-6)


def test_gate_weights_are_recorded_on_request_with_their_gradient() -> None:
    base, adapter = make_base(), make_adapter()
    batch = collate(base, make_rows(base, SHAPES))
    gate = adapter.interventions[1].gate
    assert gate is not None
    gate.requires_grad_()

    recording = Recording()
    compute_logits(make_view(base), batch, adapter.interventions, recording=recording, record=True)

    assert {block: tuple(w.shape) for block, w in recording.weights.items()} == {1: (5, 16, 3), 2: (5, 16, 3)}
    (gradient,) = torch.autograd.grad(recording.weights[1].sum(), [gate])
    assert bool(gradient.abs().sum() > 0)


def test_concurrent_calls_on_one_view_and_on_several_do_not_mix() -> None:
    base = make_base()
    shared, other = make_view(base), make_view(base, some_tensors(base))
    batch = collate(base, make_rows(base, SHAPES))
    cases = [(view, make_adapter(seed=seed)) for seed in range(3) for view in (shared, other)] + [(shared, make_adapter(scale=0))]
    want = [compute_logits(view, batch, adapter.interventions) for view, adapter in cases]
    together = threading.Barrier(len(cases))
    wrong: list[int] = []

    def ask(number: int) -> None:
        view, adapter = cases[number]
        together.wait(timeout=30)
        for _ in range(8):
            if not torch.equal(compute_logits(view, batch, adapter.interventions), want[number]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert wrong == []
    assert len({float(w.sum()) for w in want}) == len(cases)


def test_calls_nest_and_the_outer_call_is_restored() -> None:
    base = make_base()
    view, batch = make_view(base), collate(base, make_rows(base, SHAPES))
    adapter = make_adapter()
    want = compute_logits(view, batch, adapter.interventions)

    with call_context(Call(interventions=adapter.interventions, mask=batch.positions)):
        compute_logits(view, batch)
        got = view.model(
            input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
        ).logits

    assert torch.equal(got, want)


def test_a_block_that_returns_a_tuple_is_intervened_too() -> None:
    """GPT-J's blocks still do."""
    base = make_base("gptj", n_embd=32, n_layer=4, n_head=4, rotary_dim=4, n_positions=128)
    batch, adapter = collate(base, make_rows(base, SHAPES)), make_adapter((1, 3))

    got = compute_logits(make_view(base), batch, adapter.interventions)

    model = copy.deepcopy(base.model)
    for block, intervention in adapter.interventions.items():
        _hook_tuple(model.transformer.h[block], intervention, batch.positions)
    want = model(
        input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
    ).logits
    torch.testing.assert_close(got, want.detach(), rtol=0, atol=1e-6)


def _hook_tuple(block: nn.Module, intervention: Intervention, mask: Tensor) -> None:
    def hook(module: nn.Module, inputs: object, out: object) -> object:
        return (intervention(out[0], mask), *out[1:]) if isinstance(out, tuple) else intervention(out, mask)

    block.register_forward_hook(hook)
