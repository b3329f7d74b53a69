"""How likely a version finds given continuations. A row's log-likelihood is log p(target | prompt), summed over its tokens."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import cross_entropy

from service.evaluation.metrics.length_batches import passes
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import LAST_PROMPT_TOKENS, Row, collate
from service.lm.sampling import greedy_tokens


@torch.no_grad()
def log_likelihoods(
    view: View, adapter: Adapter | None, rows: Sequence[Row], *, between: Callable[[], None] = lambda: None
) -> list[tuple[float, bool]]:
    """Of each row: the log-likelihood of its target tokens, and whether greedy decoding would give exactly them."""
    found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
    for chunk in passes(view, rows):
        batch = collate(view.base, [rows[at] for at in chunk], last=LAST_PROMPT_TOKENS if adapter is None else adapter.last)
        logits = compute_target_logits(view, batch, None if adapter is None else adapter.interventions)  # (N, V)
        losses = cross_entropy(logits.float(), batch.labels, reduction="none").double().cpu()  # (N,)
        right = (greedy_tokens(logits) == batch.labels).cpu()  # (N,)
        lengths = [len(rows[at].target_ids) for at in chunk]
        for at, loss, hits in zip(chunk, losses.split(lengths), right.split(lengths), strict=True):
            found[at] = (-float(loss.sum()), bool(hits.all()))
        between()
    return found
