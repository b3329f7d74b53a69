"""Teacher forcing: the log-probability of every target token and the first choice at its position, after the tokens before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.evaluation.metrics.length_batches import batch_by_length
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row
from service.lm.sampling import greedy_tokens
from service.lm.scoped_rows import score_targets


@dataclass(frozen=True, eq=False)
class ForcedRow:
    """A version's choices and log-probabilities along one row's target. `distributions` (N, V) are whole log-probabilities."""

    choices: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    distributions: Tensor | None = None

    @property
    def mean(self) -> float:
        """Log-probability per target token."""
        return sum(self.log_probabilities) / len(self.log_probabilities)


@torch.no_grad()
def teacher_force(
    view: View,
    adapter: Adapter | None,
    rows: Sequence[Row],
    *,
    distributions: int = 0,
    alternative: bool = False,
    yield_to_answers: Callable[[], None] = lambda: None,
) -> list[ForcedRow]:
    """One ForcedRow a row, in order, with whole distributions at its first `distributions` target tokens.

    `alternative` passes the same rows in other batches. In exact arithmetic that changes nothing, so the changes are the noise of
    rounding. Every row needs a target.
    """
    results: list[ForcedRow | None] = [None] * len(rows)
    for chunk in batch_by_length(view, rows, alternative=alternative):
        batch, logits = score_targets(view, [rows[index] for index in chunk], adapter)
        logits = logits.float()  # (N, V)
        normaliser = logits.logsumexp(-1)  # (N,)
        log_probabilities = (logits.gather(-1, batch.labels.to(logits.device)[:, None])[:, 0] - normaliser).cpu()  # (N,)
        predictions = greedy_tokens(logits).cpu()  # (N,)
        start = 0
        for index in chunk:
            end = start + len(rows[index].target_ids)
            span = slice(start, min(end, start + distributions))
            results[index] = ForcedRow(
                tuple(predictions[start:end].tolist()),
                tuple(log_probabilities[start:end].tolist()),
                (logits[span] - normaliser[span, None]).cpu() if distributions else None,
            )
            start = end
        yield_to_answers()
    return [result for result in results if result is not None]


def divergence(before: Tensor, after: Tensor) -> float:
    """KL(before ‖ after) in nats of log-probabilities (N, V), the mean over positions. A result below 0 by rounding is 0."""
    return max(0.0, float((before.exp() * (before - after)).sum(-1).mean()))


def agreement(left: Sequence[int], right: Sequence[int]) -> float:
    """The share of positions at which two equally long sequences agree."""
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(right)
