"""Sampling: the inverse distribution function at a fine grid of points gives the distribution."""

import pytest
import torch

from service.lm.sampling import greedy_tokens, sample_tokens

LOGITS = torch.tensor([[1.0, 3.0, -2.0, 2.0, 0.0]])


def frequencies(*, temperature: float = 1.0, top_p: float = 1.0, points: int = 20_000) -> torch.Tensor:
    grid = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    tokens = sample_tokens(LOGITS.expand(points, -1), grid, temperature=temperature, top_p=top_p)
    return torch.bincount(tokens, minlength=5).double() / points


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float) -> None:
    want = torch.softmax(LOGITS[0].double() / temperature, -1)
    torch.testing.assert_close(frequencies(temperature=temperature), want, rtol=0, atol=2e-4)


def test_the_nucleus_is_the_fewest_likeliest_tokens_that_reach_top_p() -> None:
    shares = torch.softmax(LOGITS[0].double(), -1)  # 0.64 for token 1, 0.24 for 3, 0.09 for 0
    kept = torch.tensor([False, True, False, True, False])

    got = frequencies(top_p=0.8)

    torch.testing.assert_close(got, torch.where(kept, shares, 0.0) / shares[kept].sum(), rtol=0, atol=2e-4)
    assert frequencies(top_p=0.5).tolist() == [0, 1, 0, 0, 0]
    assert frequencies(top_p=1e-9).tolist() == [0, 1, 0, 0, 0]


def test_the_ends_of_the_unit_interval_give_possible_tokens() -> None:
    tokens = sample_tokens(LOGITS.expand(2, -1), torch.tensor([0.0, 1 - 2**-24]))
    assert tokens.tolist() == [1, 2]  # the likeliest first, the least likely last


def test_a_tiny_temperature_is_greedy() -> None:
    assert frequencies(temperature=1e-3).tolist() == [0, 1, 0, 0, 0]
    assert greedy_tokens(LOGITS).tolist() == [1]
