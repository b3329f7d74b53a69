"""Whether rows are answered: every target token is the likeliest, by a margin. Knows no model and no training."""

import torch
from torch import Tensor


def label_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) the lead of each label over the best other token, in nats, for logits (N, V); negative where the label is behind."""
    scores = logits.detach().float()  # differences of logits are differences of log-probabilities
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], float("-inf"))
    return own - others.amax(-1)


def row_margins(logits: Tensor, labels: Tensor, row_of: Tensor, rows: int) -> Tensor:
    """(rows,) the smallest margin among each row's target tokens: above zero if greedy decoding gives the target."""
    least = torch.full((rows,), float("inf"), device=logits.device)
    return least.scatter_reduce(0, row_of, label_margins(logits, labels), "amin")


def answered_mask(logits: Tensor, labels: Tensor, row_of: Tensor, rows: int, margin: float) -> Tensor:
    """(rows,) bool: every target token leads by more than `margin` nats.

    A small margin keeps the answer through the rounding of other batch shapes and of the served dtype.
    """
    return row_margins(logits, labels, row_of, rows) > margin
