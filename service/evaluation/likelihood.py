"""How likely a version finds given continuations. A row's log-likelihood is log p(target | prompt), summed over its tokens."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from service.lm.intervention import Adapter
from service.lm.overlay import View, target_logits
from service.lm.prompts import LAST, Row, collate
from service.lm.sampling import likeliest

ROWS_AT_ONCE = 64
TARGETS_AT_ONCE = 512  # positions: their logits are 0.3 GB in fp32 with a vocabulary of 150,000


@torch.no_grad()
def log_likelihoods(
    view: View, adapter: Adapter | None, rows: Sequence[Row], *, between: Callable[[], None] = lambda: None
) -> list[tuple[float, bool]]:
    """Of each row: the log-likelihood of its target tokens, and whether greedy decoding would give exactly them."""
    found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
    for chunk in _chunks(rows):
        batch = collate(view.base, [rows[at] for at in chunk], last=LAST if adapter is None else adapter.last)
        logits = target_logits(view, batch, None if adapter is None else adapter.interventions)  # (N, V)
        losses = cross_entropy(logits.float(), batch.labels, reduction="none").double().cpu()  # (N,)
        right = (likeliest(logits) == batch.labels).cpu()  # (N,)
        lengths = [len(rows[at].target_ids) for at in chunk]
        for at, loss, hits in zip(chunk, losses.split(lengths), right.split(lengths), strict=True):
            found[at] = (-float(loss.sum()), bool(hits.all()))
        between()
    return found


def _chunks(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Places of rows of like length, as many as fit one pass; rows without a target need none."""
    chunk: list[int] = []
    targets = 0
    for at in sorted((at for at, row in enumerate(rows) if row.target_ids), key=lambda at: len(rows[at].ids)):
        length = len(rows[at].target_ids)
        if chunk and (len(chunk) == ROWS_AT_ONCE or targets + length > TARGETS_AT_ONCE):
            yield chunk
            chunk, targets = [], 0
        chunk.append(at)
        targets += length
    if chunk:
        yield chunk
