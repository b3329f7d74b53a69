"""The regularisers of BaFT's objective (BaFT paper, Eq. 4), as pure functions of tensors. Knows no model and no optimizer.

Weights are `(E, R)`: for every edit, the mean over its intervened positions of w_k(h) at one block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from service.lm.intervention import Balance

_ROUNDING = 1e-12  # above the squared variation of means that differ by the rounding of float32 alone


def position_means(weights: Tensor, mask: Tensor) -> Tensor:
    """(B, R): mean over the intervened positions `mask` (B, T) of the weights (B, T, R)."""
    chosen = mask.to(weights.dtype).unsqueeze(-1)  # (B, T, 1)
    return (weights * chosen).sum(1) / chosen.sum(1).clamp(min=1)


def edit_means(weights: Tensor, edits: Tensor) -> Tensor:
    """(E, R): rows of weights (B, R) averaged per edit, for `edits` (B,) ids; an edit counts once, with any number of rows."""
    _, index = torch.unique(edits, return_inverse=True)  # (B,)
    count = int(index.max()) + 1
    sums = weights.new_zeros(count, weights.shape[1]).index_add(0, index, weights)
    rows = weights.new_zeros(count, 1).index_add(0, index, weights.new_ones(len(weights), 1))
    return sums / rows


def balance_term(current: Tensor, past: Balance | None, form: str) -> Tensor:
    """Incremental load balancing of one block over current (E, R) and past edits.

    w̄_k = (S_k + Σ_e w_k^e) / (n + E), with gradient through the current edits only. `cv2`: Σ_k (w̄_k − w̄)² / ((r − 1) w̄²), the
    squared coefficient of variation that the paper's text names. `paper`: the same over (r − 1) w̄, as the paper prints it.
    """
    edits, rank = current.shape
    if rank < 2:
        return current.new_zeros(())
    total, count = (current.new_zeros(rank), 0) if past is None else (past.total.detach().to(current), past.count)
    means = (total + current.sum(0)) / (count + edits)  # (R,)
    overall = means.mean()
    scale = overall if form == "paper" else overall.square()
    return (means - overall).square().sum() / ((rank - 1) * scale + 1e-8)


def margin_term(edit: Tensor, unrelated: Tensor, *, alpha: float, beta: float, gamma: float) -> Tensor:
    """Locality by margins at one block: `edit` and `unrelated` are weights (E, R).

    mean max(0, W(h_ir) − α) + mean max(0, β − W(h)) + mean max(0, γ − (max_k W(h) − max_k W(h_ir))), after Eq. 4's R_loc.
    """
    quiet = (unrelated - alpha).clamp(min=0).mean()
    loud = (beta - edit).clamp(min=0).mean()
    gap = edit.amax(-1).mean() - unrelated.amax(-1).mean() if len(edit) != len(unrelated) else edit.amax(-1) - unrelated.amax(-1)
    return quiet + loud + (gamma - gap).clamp(min=0).mean()


def rescale(term: Tensor, to: Tensor, limit: float | None) -> Tensor:
    """The term scaled to the size of `to`: λ · term with λ = stopgrad(to / term), and 0 for a term of 0.

    λ is at most `limit`. Without a limit, a term that is rounding of float32 alone counts as 0: its gradient says nothing.
    """
    value = float(term.detach())
    if value == 0.0 or (limit is None and value < _ROUNDING):
        return term * 0.0
    if limit is None:
        return term * (float(to.detach()) / value)
    return term * min(float(to.detach()) / max(value, 1e-6), limit)


def commit_balance(past: Balance | None, weights: Tensor, *, horizon: int = 0) -> Balance:
    """The state after learning edits of weights (E, R): S += Σ_e w^e, n += E. Called once per edit, never per step.

    With a `horizon` the state is then scaled down to n = horizon, if n is larger: a past edit fades by n / (n + E) with each fit,
    and the current edits of a fit never weigh less than 1 / (horizon + E) each.
    """
    total = weights.detach().float().sum(0).cpu()
    count = len(weights)
    if past is not None:
        total, count = past.total + total, past.count + count
    if horizon and count > horizon:
        total, count = total * (horizon / count), horizon
    return Balance(total, count)


def layer_mean(terms: Sequence[Tensor]) -> Tensor:
    """Mean over the blocks."""
    return torch.stack(list(terms)).mean()
