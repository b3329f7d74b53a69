"""The intervention is the paper's formula, in full precision, at the positions of the mask."""

import math

import pytest
import torch
from torch import Tensor

from service.lm.intervention import Intervention
from tests.builders import WIDTH, make_intervention


def equation_3(h: Tensor, it: Intervention) -> Tensor:
    """h + sum over k of w_k(h) (a_k . h + b_k - r_k . h) r_k for one vector, written as a sum over bases (Eq. 2)."""
    scale = 1 / math.sqrt(float((h * h).mean()) + 1e-6)
    out = h.clone()
    for k in range(len(it.rotation)):
        normed = h * scale * it.gain if it.gain is not None else h
        weight = 1.0 if it.gate is None else 1 / (1 + math.exp(-float(it.gate[k % len(it.gate)] @ normed)))
        out = out + weight * (it.source[k] @ h + it.bias[k] - it.rotation[k] @ h) * it.rotation[k]
    return out


def hidden(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(5), dtype=dtype)


VARIANTS = ["basis", "subspace", "plain gate", "no gate"]


def variant(name: str) -> Intervention:
    full = make_intervention(dtype=torch.float64)
    assert full.gate is not None
    gate = {"basis": full.gate, "subspace": full.gate[:1], "plain gate": full.gate, "no gate": None}[name]
    return Intervention(full.rotation, full.source, full.bias, gate, full.gain if name in ("basis", "subspace") else None)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_intervention_is_the_sum_over_its_bases(name: str) -> None:
    it, h = variant(name), hidden(2, 3)
    if name == "subspace":
        it = Intervention(it.rotation, it.source, it.bias, it.gate, it.gain)

    got = it(h, torch.ones(2, 3, dtype=torch.bool))

    want = torch.stack([equation_3(row, it) for row in h.reshape(-1, WIDTH)]).reshape(h.shape)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_a_state_outside_the_mask_is_the_same_bits() -> None:
    it, h = make_intervention(), hidden(1, 2, dtype=torch.float32)
    h[0, 1, 0] = -0.0

    got = it(h, torch.tensor([[True, False]]))

    assert not torch.equal(got[0, 0], h[0, 0])
    assert torch.equal(got[0, 1].view(torch.int32), h[0, 1].view(torch.int32))


def test_a_fresh_intervention_changes_no_bit_in_any_dtype() -> None:
    it = make_intervention(scale=0.0)
    for dtype in (torch.float32, torch.bfloat16):
        h = hidden(2, 2, dtype=torch.float32).to(dtype)
        assert torch.equal(it(h, torch.ones(2, 2, dtype=torch.bool)), h)


def test_arithmetic_is_fp32_for_states_in_bf16() -> None:
    it, h = make_intervention(), hidden(1, 4, dtype=torch.float32).to(torch.bfloat16)
    mask = torch.ones(1, 4, dtype=torch.bool)

    got = it(h, mask)

    assert got.dtype == torch.bfloat16
    assert torch.equal(got, it(h.float(), mask).to(torch.bfloat16))
    assert it.weights(h).dtype == torch.float32


def test_weights_lie_between_0_and_1_and_without_a_gate_are_1() -> None:
    h = 100 * hidden(2, 3, dtype=torch.float32)
    weights = make_intervention().weights(h)
    bare = Intervention(*[getattr(make_intervention(), name) for name in ("rotation", "source", "bias")])

    assert weights.shape == (2, 3, 3) and bool((weights >= 0).all()) and bool((weights <= 1).all())
    assert torch.equal(bare.weights(h), torch.ones(2, 3, 3))


def test_gradients_reach_every_tensor_and_only_through_the_mask() -> None:
    it = Intervention(**{name: tensor.clone().requires_grad_() for name, tensor in make_intervention().tensors().items()})
    h = hidden(1, 2, dtype=torch.float32)

    masked = torch.autograd.grad(it(h, torch.tensor([[True, False]])).sum(), list(it.tensors().values()))
    alone = torch.autograd.grad(it(h[:, :1], torch.tensor([[True]])).sum(), list(it.tensors().values()))

    for one, other in zip(masked, alone, strict=True):
        assert bool(one.abs().sum() > 0)
        torch.testing.assert_close(one, other)
