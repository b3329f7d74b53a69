"""Groups of rows for forward passes, bounded in rows and in tokens, padding included.

A bound on rows alone would let one long row make a pass expensive. Between two groups other work has its turn.
"""

from collections.abc import Iterator, Sequence
from math import inf

ROWS_AT_ONCE = 64
PASS_TOKENS = 48  # tokens that take as long as one pass more, roughly: of a small model more, of a large one fewer
TOKENS_AT_ONCE = 8_192  # 64 rows of 128 tokens: the row bound alone applies to texts of ordinary length


def split_in_order(lengths: Sequence[int], *, rows: int = ROWS_AT_ONCE, tokens: int = TOKENS_AT_ONCE) -> Iterator[range]:
    """Consecutive index ranges of rows with these lengths, within both bounds. Each range has at least one row."""
    start = longest = 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > start and (index - start == rows or (index - start + 1) * longest > tokens):
            yield range(start, index)
            start, longest = index, length
    if lengths:
        yield range(start, len(lengths))


def group_by_length(lengths: Sequence[int], *, tokens: int = TOKENS_AT_ONCE) -> list[list[int]]:
    """Row indexes in groups as large as `tokens` allows: all rows in order if they fit together, else rows of like length,
    shortest first.
    """
    if len(lengths) * max(lengths, default=0) <= tokens:
        return [list(range(len(lengths)))] if lengths else []
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    spans = split_in_order([lengths[index] for index in order], rows=len(order), tokens=tokens)
    return [[order[position] for position in span] for span in spans]


def group_by_padding(lengths: Sequence[int]) -> list[list[int]]:
    """Row indexes in groups of like length, shortest first, so that all tokens with padding, and PASS_TOKENS for each group, are
    fewest. Every row is in one group.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    least, cuts = [0.0], [0]  # by the number of rows, shortest first: their fewest tokens, and where their last group begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best, cut = inf, 0
        for start in range(end):
            tokens = least[start] + (end - start) * longest + PASS_TOKENS
            if tokens < best:
                best, cut = tokens, start
        least.append(best)
        cuts.append(cut)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[cuts[end] : end])
        end = cuts[end]
    return groups[::-1]
