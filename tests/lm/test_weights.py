"""Weights are read and placed by name, dense, and a placed weight is a copy."""

import pytest
import torch

from service.domain.errors import Refused
from service.lm.weights import place_weight, read_weight, weight_shape


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)).to(torch.bfloat16)


def test_a_placed_weight_is_used_in_the_dtype_of_the_weight_it_replaces() -> None:
    changed, placed = model(), torch.full((2, 3), 0.1)

    place_weight(changed, "0.weight", placed)

    assert read_weight(changed, "0.weight").dtype is torch.bfloat16
    assert torch.equal(read_weight(changed, "0.weight"), placed.to(torch.bfloat16))
    expected = torch.nn.functional.linear(torch.ones(3).to(torch.bfloat16), placed.to(torch.bfloat16), changed[0].bias)  # type: ignore[index]
    assert torch.equal(changed[0](torch.ones(3).to(torch.bfloat16)), expected)  # type: ignore[index]


def test_a_placed_weight_is_a_copy_without_gradients() -> None:
    changed, placed = model(), torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)

    place_weight(changed, "0.weight", placed)
    with torch.no_grad():
        placed.fill_(9.0)

    assert not read_weight(changed, "0.weight").any()
    assert not changed.get_parameter("0.weight").requires_grad


@pytest.mark.parametrize("name", ["2.weight", "0.nothing", "weight", "", "0"])
def test_a_weight_that_the_model_lacks_is_refused_by_field(name: str) -> None:
    assert weight_shape(model(), name) is None
    with pytest.raises(Refused) as caught:
        read_weight(model(), name)
    assert caught.value.field == "tensors"
    with pytest.raises(Refused):
        place_weight(model(), name, torch.zeros(2, 3))
