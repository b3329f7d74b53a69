"""How many rows go through the model together: never more than so many, nor more than so many tokens, padding included.

What is bounded in rows alone costs what its longest row makes of it; between two pieces somebody else has a turn.
"""

from collections.abc import Iterator, Sequence

ROWS_AT_ONCE = 64
TOKENS_AT_ONCE = 8_192  # 64 rows of 128 tokens: texts of ordinary length are bounded by their number alone


def split_in_order(lengths: Sequence[int], *, rows: int = ROWS_AT_ONCE, tokens: int = TOKENS_AT_ONCE) -> Iterator[range]:
    """The places of rows of these lengths, in their order, in pieces; each holds one row at least."""
    start = widest = 0
    for at, length in enumerate(lengths):
        widest = max(widest, length)
        if at > start and (at - start == rows or (at - start + 1) * widest > tokens):
            yield range(start, at)
            start, widest = at, length
    if lengths:
        yield range(start, len(lengths))


def group_by_length(lengths: Sequence[int], *, tokens: int = TOKENS_AT_ONCE) -> list[list[int]]:
    """The places of rows in groups that are as large as the tokens allow: all in their order if they fit together, else rows of
    like length, the shortest first.
    """
    if len(lengths) * max(lengths, default=0) <= tokens:
        return [list(range(len(lengths)))] if lengths else []
    order = sorted(range(len(lengths)), key=lambda at: lengths[at])
    return [
        [order[at] for at in piece] for piece in split_in_order([lengths[at] for at in order], rows=len(order), tokens=tokens)
    ]
