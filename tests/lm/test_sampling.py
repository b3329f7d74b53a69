"""Sampling: the inverse distribution function at a fine grid of points gives the distribution."""

import pytest
import torch

from service.lm import sampling
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
    assert tokens.tolist() == [0, 4]  # the first token and the last one


def test_a_nucleus_of_more_tokens_than_are_sorted_first_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)).expand(500, -1)
    whole = sample_tokens(logits, grid, top_p=0.9)

    monkeypatch.setattr(sampling, "_NUCLEUS", 2)

    assert torch.equal(sample_tokens(logits, grid, top_p=0.9), whole)


def test_equally_likely_tokens_enter_the_nucleus_in_the_order_of_their_ids() -> None:
    grid = (torch.arange(100, dtype=torch.float64) + 0.5) / 100

    tokens = sample_tokens(torch.zeros(100, 10), grid, top_p=0.3)

    assert tokens.bincount().tolist() == pytest.approx([100 / 3] * 3, abs=1)


def test_a_token_without_a_share_is_never_sampled() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])

    tokens = sample_tokens(logits.expand(3, -1), torch.tensor([0.0, 0.5, 1 - 2**-24]))

    assert tokens.tolist() == [1, 3, 3]


@pytest.mark.parametrize("temperature", [1e-3, 1e-7, 1e-38, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    assert frequencies(temperature=temperature).tolist() == [0, 1, 0, 0, 0]
    assert frequencies(temperature=temperature, top_p=0.5).tolist() == [0, 1, 0, 0, 0]
    assert greedy_tokens(LOGITS).tolist() == [1]
