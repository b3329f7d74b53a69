"""The cached step equals the plain forward pass, gradients included.

In float64 the two differ by rounding alone (1e-12 here). Some families cannot be run in it: eager attention masks with the
dtype's smallest number, which overflows its fp32 softmax (Gemma-2), grouped products know no float64 (mixtures of experts),
GPT-J and GPT-Neo ask for attention in fp32, and Gemma-4 for norms. There fp32 is used and the tolerance is 2e-5 on logits of
size 1.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.blocks import Location, ModuleKind
from service.lm.cached_step import compute_block_inputs, concatenate, prefill, resume, run_from
from service.lm.intervention import Intervention
from service.lm.overlay import Recording, View, _mlp_forward, apply_lm_head, compute_target_logits, make_view
from service.lm.prompts import Batch, Row, collate
from tests.builders import FAMILIES, make_adapter, make_base, make_rows, tuned_kind

# Longer than the sliding windows of 5, shorter than the three intervened tokens, and of several lengths at once.
SHAPES = [(6, 3), (1, 2), (12, 4), (2, 5), (3, 1), (20, 7)]
FP32 = ("gemma2", "qwen2_moe", "qwen3_moe", "mixtral", "gptj", "gpt_neo", "gpt_oss", "gemma4_text")
# Its MLP answers in a tuple, and is nothing but experts, so that it has no down-projection like the other families.
GPT_OSS = {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 5,
    "head_dim": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


def setting(family: str, **changes: Any) -> tuple[Base, View, list[Row], float]:
    dtype = torch.float32 if family in FP32 else torch.float64
    base = make_base(family, dtype=dtype, **changes)
    return base, make_view(base), make_rows(base, SHAPES), 2e-5 if family in FP32 else 1e-12


def learnable(blocks: range, dtype: torch.dtype) -> dict[int, Intervention]:
    adapter = make_adapter(blocks, dtype=dtype)
    return {
        block: Intervention(**{name: tensor.clone().requires_grad_() for name, tensor in it.tensors().items()})
        for block, it in adapter.interventions.items()
    }


def gradients(loss: Tensor, interventions: Mapping[int, Intervention]) -> list[Tensor]:
    leaves = [tensor for it in interventions.values() for tensor in it.tensors().values()]
    return list(torch.autograd.grad(loss, leaves, retain_graph=True))


@pytest.mark.parametrize("first_block", [0, 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cached_step_equals_the_plain_forward_pass_and_its_gradients(family: str, first_block: int) -> None:
    base, view, rows, tolerance = setting(family)
    interventions, batch = learnable(range(first_block, 4, 2), base.dtype), collate(base, rows)

    seen = Recording()
    plain = compute_target_logits(view, batch, interventions, recording=seen, record=True)
    cached = resume(view, prefill(view, rows, first_block=first_block, max_batch=4), interventions, record=True)

    torch.testing.assert_close(cached.logits, plain, rtol=0, atol=tolerance)
    torch.testing.assert_close(cached.final, seen.final, rtol=0, atol=tolerance)
    assert torch.equal(cached.labels, batch.labels) and torch.equal(cached.row_of, batch.row_of)
    for block, weights in seen.weights.items():  # the gate weights of the intervened positions, in the same order
        torch.testing.assert_close(
            cached.recording.weights[block][cached.positions], weights[batch.positions], rtol=0, atol=tolerance
        )
    loss, other = cross_entropy(cached.logits, cached.labels), cross_entropy(plain, batch.labels)
    for one, two in zip(gradients(loss, interventions), gradients(other, interventions), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance)
        assert bool(two.abs().sum() > 0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
def test_prefilled_rows_can_be_selected_repeated_and_concatenated(family: str) -> None:
    base, view, rows, tolerance = setting(family)
    interventions = learnable(range(1, 4), base.dtype)
    chosen = [5, 0, 0, 1]

    first, second = prefill(view, rows[:2], first_block=1), prefill(view, rows[2:], first_block=1)
    got = resume(view, concatenate([first, second]).select(chosen), interventions)
    alone = resume(view, prefill(view, rows, first_block=1).select([1]), interventions)

    want = [compute_target_logits(view, collate(base, [rows[index]]), interventions) for index in chosen]
    torch.testing.assert_close(got.logits, torch.cat(want), rtol=0, atol=tolerance)
    torch.testing.assert_close(alone.logits, want[-1], rtol=0, atol=tolerance)
    assert got.row_of.tolist() == [place for place, index in enumerate(chosen) for _ in rows[index].target_ids]


def test_steps_do_not_change_prefilled_rows() -> None:
    base, view, rows, _ = setting("llama")
    prepared = prefill(view, rows, first_block=1)
    first = resume(view, prepared, make_adapter((1, 3), seed=1, dtype=base.dtype).interventions)

    resume(view, prepared, make_adapter((2,), seed=2, dtype=base.dtype).interventions)
    again = resume(view, prepared, make_adapter((1, 3), seed=1, dtype=base.dtype).interventions)

    assert torch.equal(first.logits, again.logits)


def test_a_cached_step_runs_only_the_upper_blocks_and_only_the_suffix() -> None:
    base, view, rows, _ = setting("llama")
    prepared = prefill(view, rows, first_block=1)
    ran: list[tuple[int, int]] = []
    handles = [
        block.mlp.register_forward_hook(_noting(ran, number))  # type: ignore[union-attr, arg-type]
        for number, block in enumerate(view.anatomy.blocks)
    ]

    resume(view, prepared, make_adapter((1, 2), dtype=base.dtype).interventions)

    for handle in handles:
        handle.remove()
    assert ran == [(2, 10), (3, 10)]  # of up to 27 tokens: the last three of a prompt and seven of a target


def _noting(ran: list[tuple[int, int]], number: int) -> Callable[..., None]:
    def note(module: object, inputs: object, out: Tensor) -> None:
        ran.append((number, out.shape[1]))

    return note


def test_base_predictions_follow_from_stored_final_states() -> None:
    """The preserve term keeps the states and applies the head on the fly."""
    base, view, rows, tolerance = setting("gemma2")
    untouched = resume(view, prefill(view, rows, first_block=1), {})
    torch.testing.assert_close(apply_lm_head(view, untouched.final), untouched.logits, rtol=0, atol=tolerance)
    torch.testing.assert_close(untouched.logits, compute_target_logits(view, collate(base, rows)), rtol=0, atol=tolerance)


def test_interventions_below_the_first_block_are_refused() -> None:
    base, view, rows, _ = setting("llama")
    with pytest.raises(Refused):
        resume(view, prefill(view, rows, first_block=2), make_adapter((1,), dtype=base.dtype).interventions)


@pytest.mark.parametrize("kind", ["down", "block"])
@pytest.mark.parametrize("block", [0, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_running_from_the_tuned_block_equals_the_plain_forward_pass_and_its_gradients(
    family: str, block: int, kind: ModuleKind
) -> None:
    base, private, rows, tolerance = setting(family)
    own = dict(base.model.named_parameters())
    names = base.anatomy.parameters_at(Location(tuned_kind(family) if kind == "down" else kind, block))
    changed = {name: (1.3 * own[name]).requires_grad_() for name in names}

    inputs = compute_block_inputs(private, rows, block=block, max_batch=4)
    got = run_from(private, inputs, parameters=changed)

    want, wanted_gradients = _plain(base, changed, collate(base, rows))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
    ours = torch.autograd.grad(cross_entropy(got, inputs.batch.labels), list(changed.values()), allow_unused=True)
    if family in ("gemma", "gemma3_text"):  # sums the gradients of its norms over the columns in fp32, and here are fewer of them
        tolerance = 1e-7
    for one, two in zip(ours, wanted_gradients, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(one, two, rtol=0, atol=tolerance)
    assert all(torch.equal(tensor, own[name]) for name, tensor in private.model.named_parameters())


def _plain(base: Base, changed: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The whole model with the tensors written into it."""
    rewritten = make_view(base, changed)
    parameters = dict(rewritten.model.named_parameters())
    for name in changed:
        parameters[name].requires_grad_()
    out = compute_target_logits(rewritten, batch)
    loss = cross_entropy(out, batch.labels)
    return out, torch.autograd.grad(loss, [parameters[name] for name in changed], allow_unused=True)


def test_computing_block_inputs_runs_only_lower_blocks_and_no_last_token() -> None:
    _, view, rows, _ = setting("llama")
    ran: list[tuple[int, int]] = []
    handles = [
        block.mlp.register_forward_hook(_noting(ran, number))  # type: ignore[union-attr, arg-type]
        for number, block in enumerate(view.anatomy.blocks)
    ]

    inputs = compute_block_inputs(view, rows, block=2)
    prepared, ran[:] = list(ran), []
    run_from(view, inputs)

    for handle in handles:
        handle.remove()
    assert prepared == [(0, 26), (1, 26)]  # of up to 27 tokens
    assert ran == [(2, 26), (3, 26)]


def test_the_last_blocks_mlp_runs_at_predicting_positions_alone() -> None:
    _, view, rows, _ = setting("llama")
    seen: list[int] = []
    down = view.anatomy.blocks[3].mlp.down_proj  # type: ignore[union-attr]
    handle = down.register_forward_hook(lambda module, inputs, out: seen.append(out[..., 0].numel()))  # type: ignore[union-attr, operator]

    run_from(view, compute_block_inputs(view, rows, block=2))

    handle.remove()
    assert seen == [sum(len(row.target_ids) for row in rows)]


@pytest.mark.parametrize("count", [2, 3, 6])  # two rows would be unpacked without a word
def test_an_mlp_that_returns_a_tuple_also_runs_at_predicting_positions_alone(count: int) -> None:
    base, view, rows, tolerance = setting("gpt_oss", **GPT_OSS)
    seen: list[int] = []
    handle = view.anatomy.blocks[3].mlp.experts.register_forward_hook(  # type: ignore[union-attr]
        lambda module, inputs, out: seen.append(out[..., 0].numel())
    )

    got = run_from(view, compute_block_inputs(view, rows[:count], block=2))

    handle.remove()
    want = compute_target_logits(view, collate(base, rows[:count]))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
    assert seen[0] == sum(len(row.target_ids) for row in rows[:count])


def test_an_mlp_with_further_arguments_runs_at_every_position() -> None:
    """Bloom's, for one, takes the residual stream as well."""
    base, view, rows, tolerance = setting("llama")
    mlp: Any = view.anatomy.blocks[3].mlp
    block: Any = view.anatomy.blocks[3]
    plainly = type(mlp).forward
    mlp.forward = _mlp_forward(lambda hidden, more: plainly(mlp, hidden) + more)
    block.mlp = _Adding(mlp)

    got = run_from(view, compute_block_inputs(view, rows, block=2))

    want = compute_target_logits(view, collate(base, rows))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


class _Adding(nn.Module):
    """Calls an MLP with a second tensor that has a place for every position."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.inner = mlp

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden, hidden)


def test_the_last_token_of_a_row_is_predicted_and_never_read() -> None:
    _, view, rows, _ = setting("llama")
    others = [Row((*row.ids[:-1], row.ids[-1] ^ 1), row.prompt_length, row.has_bos) for row in rows]

    one, two = (compute_block_inputs(view, each, block=2) for each in (rows, others))

    read = one.batch.attention[:, 1:]
    assert torch.equal(one.hidden[read], two.hidden[read])
    assert torch.equal(run_from(view, one), run_from(view, two))
    assert not torch.equal(one.batch.labels, two.batch.labels)


def test_selected_rows_of_block_inputs_run_alone() -> None:
    base, private, rows, tolerance = setting("gpt2")
    inputs = compute_block_inputs(private, rows, block=2)

    got = run_from(private, inputs.select([4, 2]))

    want = [compute_target_logits(private, collate(base, [rows[index]])) for index in (4, 2)]
    torch.testing.assert_close(got, torch.cat(want), rtol=0, atol=tolerance)
    assert len(inputs.select([4, 2])) == 2
