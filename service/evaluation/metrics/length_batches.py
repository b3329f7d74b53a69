"""Rows as they go through the model together: of like length, and as many as one pass has room for.

The bound is on the logits that their targets make and on tokens, not on rows alone: with a vocabulary of 150,000 a few long
targets are as much as a hundred short ones.
"""

from collections.abc import Iterator, Sequence

from service.lm.overlay import View
from service.lm.prompts import Row

ROWS_AT_ONCE = 32
MOST_TOKENS = 8_192  # of a batch, padding included
MOST_LOGITS = 1 << 26  # numbers: 0.25 GiB in fp32


def batch_by_length(view: View, rows: Sequence[Row], *, otherwise: bool = False) -> Iterator[list[int]]:
    """Places of rows, shortest first; a row without a target needs no pass. `otherwise`: other batches, longest first and fewer
    at once.
    """
    vocabulary = view.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    most_targets = max(1, MOST_LOGITS // vocabulary)
    most_rows = ROWS_AT_ONCE // 3 if otherwise else ROWS_AT_ONCE
    chunk: list[int] = []
    targets = widest = 0
    asked = (at for at, row in enumerate(rows) if row.target_ids)
    for at in sorted(asked, key=lambda at: len(rows[at].ids), reverse=otherwise):
        length, more = len(rows[at].ids), len(rows[at].target_ids)
        widest = max(widest, length)
        full = len(chunk) == most_rows or targets + more > most_targets or (len(chunk) + 1) * widest > MOST_TOKENS
        if chunk and full:
            yield chunk
            chunk, targets, widest = [], 0, length
        chunk.append(at)
        targets += more
    if chunk:
        yield chunk
