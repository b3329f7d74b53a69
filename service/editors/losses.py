"""The loss terms of both methods, as pure functions of tensors. Knows no model and no optimizer."""

import math

import torch
from torch import Tensor

from service.editors.protocol import FitFailed


def edit_loss(losses: Tensor, row_of: Tensor, rows: int, reduction: str) -> Tensor:
    """The teacher-forced edit loss, L1. `losses` (N,) are −log p of the target tokens, `row_of` (N,) their rows.

    `sum`: tokens summed per row, rows averaged (as the BaFT paper prints it for one edit). `sample`: token mean per row, rows
    averaged. `token`: mean over all tokens.
    """
    if reduction == "token":
        return losses.mean()
    sums = losses.new_zeros(rows).index_add(0, row_of, losses)  # (rows,)
    if reduction == "sum":
        return sums.mean()
    counts = losses.new_zeros(rows).index_add(0, row_of, torch.ones_like(losses))  # (rows,)
    return (sums / counts.clamp(min=1)).mean()


def divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Preserve term: the mean of `divergences` over positions."""
    return divergences(logits, reference).mean()


def divergences(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference ‖ model) at each position: (N,). `logits` (N, V), `reference` (N, V) log-probabilities."""
    logs = torch.log_softmax(logits.float(), -1)
    return (reference.exp() * (reference - logs)).sum(-1)


def require_finite(loss: Tensor) -> float:
    """The loss as a float. Raises FitFailed if it is not finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FitFailed("the fit met numbers that are not finite, and nothing of it was kept")
    return value
