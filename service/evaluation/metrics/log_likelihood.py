"""Log-likelihoods of continuations under a version: log p(target | prompt), summed over the target's tokens."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import cross_entropy

from service.evaluation.metrics.length_batches import batch_by_length
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row
from service.lm.sampling import greedy_tokens
from service.lm.scoped_rows import score_targets


@torch.no_grad()
def compute_log_likelihoods(
    view: View, adapter: Adapter | None, rows: Sequence[Row], *, yield_to_answers: Callable[[], None] = lambda: None
) -> list[tuple[float, bool]]:
    """The log-likelihood of each row's target tokens, and whether greedy decoding gives exactly these tokens."""
    results: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
    for chunk in batch_by_length(view, rows):
        batch, logits = score_targets(view, [rows[index] for index in chunk], adapter)  # logits: (N, V)
        losses = cross_entropy(logits.float(), batch.labels, reduction="none").double().cpu()  # (N,)
        is_first_choice = (greedy_tokens(logits) == batch.labels).cpu()  # (N,)
        lengths = [len(rows[index].target_ids) for index in chunk]
        for index, loss, hits in zip(chunk, losses.split(lengths), is_first_choice.split(lengths), strict=True):
            results[index] = (-float(loss.sum()), bool(hits.all()))
        yield_to_answers()
    return results
