"""The choice of the next token from logits: greedy, or by temperature and nucleus sampling."""

import torch
from torch import Tensor

_COLDEST = 1e-6  # a quotient by less overflows; the likeliest token has all of the share long before
_NUCLEUS = 256  # likeliest tokens that are sorted first: a nucleus is rarely larger


def greedy_tokens(logits: Tensor) -> Tensor:
    """The likeliest token of each row: (B, V) to (B,). Of equally likely tokens, the first."""
    return logits.argmax(-1)


def sample_tokens(logits: Tensor, points: Tensor, *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Tokens (B,) sampled from logits (B, V) at `points` (B,) in [0, 1), by inverting the distribution function.

    `top_p` keeps the likeliest tokens whose shares together reach it. Without it nothing is sorted: the distribution function is
    that of the tokens in the order of their ids. The points come from the caller's generators, so that a seed gives the same
    tokens in every batch, on one kind of device.
    """
    shares = torch.softmax(logits.detach().float() / max(temperature, _COLDEST), -1)  # (B, V)
    if top_p >= 1:
        return _invert(shares, points)
    shares, order = _likeliest(shares, top_p)
    reached = shares.cumsum(-1, dtype=torch.float64)
    ranks = _invert(torch.where(reached - shares < top_p, shares, 0.0), points)
    return order.gather(-1, ranks[:, None])[:, 0]


def _invert(shares: Tensor, points: Tensor) -> Tensor:
    """The index (B,) at which the running sum of shares (B, N) first exceeds the point's part of their sum."""
    reached = shares.cumsum(-1, dtype=torch.float64)
    wanted = points.to(reached.device, torch.float64)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True)[:, 0].clamp(max=shares.shape[-1] - 1)


def _likeliest(shares: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The largest shares (B, N), so many that they reach `top_p` in each row, and their tokens; the largest first, and of equal
    ones the first token.
    """
    count = min(_NUCLEUS, shares.shape[-1])
    while True:
        largest, order = shares.topk(count, -1)
        if count == shares.shape[-1] or bool((largest.sum(-1, dtype=torch.float64) > top_p).all()):
            break
        count = min(8 * count, shares.shape[-1])
    order = order.sort(-1).values
    largest, ranks = shares.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return largest, order.gather(-1, ranks)
