"""Batches of rows of similar length, as large as one forward pass has room for.

A batch is bounded by its rows, its tokens and the logits of its targets: with a vocabulary of 150,000 a few long targets have as
many logits as a hundred short ones.
"""

from collections.abc import Iterator, Sequence

from service.lm.overlay import View
from service.lm.prompts import Row

ROWS_AT_ONCE = 32
MOST_TOKENS = 8_192  # of a batch, padding included
MOST_LOGITS = 1 << 26  # numbers: 0.25 GiB in fp32


def batch_by_length(view: View, rows: Sequence[Row], *, alternative: bool = False) -> Iterator[list[int]]:
    """Indices of rows by batch, shortest rows first. A row without a target is in no batch.

    `alternative` gives other batches: longest rows first, a third of the rows at once.
    """
    vocabulary = view.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    most_targets = max(1, MOST_LOGITS // vocabulary)
    most_rows = ROWS_AT_ONCE // 3 if alternative else ROWS_AT_ONCE
    batch: list[int] = []
    targets = widest = 0
    indices = (index for index, row in enumerate(rows) if row.target_ids)
    for index in sorted(indices, key=lambda index: len(rows[index].ids), reverse=alternative):
        length, target_count = len(rows[index].ids), len(rows[index].target_ids)
        widest = max(widest, length)
        is_full = len(batch) == most_rows or targets + target_count > most_targets or (len(batch) + 1) * widest > MOST_TOKENS
        if batch and is_full:
            yield batch
            batch, targets, widest = [], 0, length
        batch.append(index)
        targets += target_count
    if batch:
        yield batch
