"""The choice of the next token from logits: greedy, or by temperature and nucleus sampling."""

import torch
from torch import Tensor


def greedy_tokens(logits: Tensor) -> Tensor:
    """The likeliest token of each row: (B, V) to (B,). Of equally likely tokens, the first."""
    return logits.argmax(-1)


def sample_tokens(logits: Tensor, points: Tensor, *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Tokens (B,) sampled from logits (B, V) at `points` (B,) in [0, 1), by inverting the distribution function.

    `top_p` keeps the likeliest tokens whose shares together reach it. The points come from the caller's generators, on the CPU,
    so that a seed gives the same tokens on every device and in every batch.
    """
    shares = torch.softmax(logits.detach().cpu().double() / temperature, -1)  # (B, V)
    shares, order = shares.sort(dim=-1, descending=True, stable=True)
    reached = shares.cumsum(-1)
    shares = torch.where(reached - shares < top_p, shares, 0.0)
    reached = shares.cumsum(-1)
    ranks = torch.searchsorted(reached, points.double()[:, None] * reached[:, -1:], right=True)  # (B, 1)
    return order.gather(-1, ranks.clamp(max=shares.shape[-1] - 1))[:, 0]
