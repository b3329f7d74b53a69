"""Whether rows are answered: every target token is the most likely one, and leads by a margin. Knows no model and no training."""

import torch
from torch import Tensor


def label_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) by how many nats each label leads the best other token, for logits (N, V); negative where it does not."""
    scores = logits.detach().float()  # differences are those of log-probabilities
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], float("-inf"))
    return own - others.amax(-1)


def row_margins(logits: Tensor, labels: Tensor, row_of: Tensor, rows: int) -> Tensor:
    """(rows,) the least lead of each row's target tokens: above zero if greedy decoding gives the target."""
    least = torch.full((rows,), float("inf"), device=logits.device)
    return least.scatter_reduce(0, row_of, label_margins(logits, labels), "amin")


def answered_mask(logits: Tensor, labels: Tensor, row_of: Tensor, rows: int, margin: float) -> Tensor:
    """(rows,) bool: every target token leads by more than `margin`.

    A small margin keeps the answer through the rounding of other batch shapes and of the dtype that serves.
    """
    return row_margins(logits, labels, row_of, rows) > margin
