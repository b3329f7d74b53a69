"""Teacher forcing: for every target token its log-probability and the first choice in its place, after the tokens before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.evaluation.metrics.length_batches import passes
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import LAST_PROMPT_TOKENS, Row, collate
from service.lm.sampling import greedy_tokens


@dataclass(frozen=True, eq=False)
class Forced:
    """What a version says along one row's target. `whole` (N, V) are all its log-probabilities there, where asked for."""

    choices: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    whole: Tensor | None = None

    @property
    def mean(self) -> float:
        """Log-probability per target token."""
        return sum(self.log_probabilities) / len(self.log_probabilities)


@torch.no_grad()
def forced(
    view: View,
    adapter: Adapter | None,
    rows: Sequence[Row],
    *,
    whole: int = 0,
    otherwise: bool = False,
    between: Callable[[], None] = lambda: None,
) -> list[Forced]:
    """Each row's figures, in the order given; whole distributions at its first `whole` target tokens.

    `otherwise`: the same rows in other batches, longest first and fewer at once. In exact arithmetic it changes nothing, so what
    it changes is the noise of rounding. Every row needs a target.
    """
    found: list[Forced | None] = [None] * len(rows)
    for chunk in passes(view, rows, otherwise=otherwise):
        batch = collate(view.base, [rows[at] for at in chunk], last=LAST_PROMPT_TOKENS if adapter is None else adapter.last)
        logits = compute_target_logits(view, batch, None if adapter is None else adapter.interventions).float()  # (N, V)
        normaliser = logits.logsumexp(-1)  # (N,)
        said = (logits.gather(-1, batch.labels.to(logits.device)[:, None])[:, 0] - normaliser).cpu()  # (N,)
        picked = greedy_tokens(logits).cpu()  # (N,)
        start = 0
        for at in chunk:
            end = start + len(rows[at].target_ids)
            first = slice(start, min(end, start + whole))
            found[at] = Forced(
                tuple(picked[start:end].tolist()),
                tuple(said[start:end].tolist()),
                (logits[first] - normaliser[first, None]).cpu() if whole else None,
            )
            start = end
        between()
    return [one for one in found if one is not None]


def divergence(before: Tensor, after: Tensor) -> float:
    """KL(before ‖ after) in nats of log-probabilities (N, V), the mean over positions; rounding below 0 counts as 0."""
    return max(0.0, float((before.exp() * (before - after)).sum(-1).mean()))


def agreement(left: Sequence[int], right: Sequence[int]) -> float:
    """The share of places at which two equally long sequences agree."""
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(right)
