"""The rows of a training epoch and their batches: functions of the answered rows and of a generator. Knows no model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_POOL = 64  # batches that are sorted by length together: enough that the rows of a batch come from all of the epoch


def choose_epoch_rows(
    is_right: Tensor, consolidated: Tensor, *, revisit: float, replay: float, generator: torch.Generator
) -> Tensor:
    """The rows of one training epoch, in random order, for `is_right` and `consolidated` (rows,) bool.

    They are every wrong row, a share `revisit` of the right new rows, and `replay` consolidated rows for each new row. So the
    length of an epoch does not depend on the number of consolidated rows.
    """
    masks = (~is_right, is_right & ~consolidated, is_right & consolidated)
    wrong, right_new, right_old = (mask.nonzero()[:, 0] for mask in masks)
    new = max(int((~consolidated).sum()), len(wrong))
    chosen = [
        wrong,
        _sample(right_new, math.ceil(revisit * len(right_new)), generator),
        _sample(right_old, math.ceil(replay * new), generator),
    ]
    return _shuffle(torch.cat(chosen).sort().values, generator)


def _sample(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows if count >= len(rows) else _shuffle(rows, generator)[:count]


def _shuffle(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def split_batches(order: Tensor, size: int) -> list[list[int]]:
    """Rows in the given order, in batches; the last one may be smaller. As in the reference code."""
    return [chosen.tolist() for chosen in order.split(size)] if len(order) else []


def split_batches_by_length(
    order: Tensor, size: int, *, length: Callable[[int], int], bucket: int, generator: torch.Generator
) -> list[list[int]]:
    """Batches of rows of like length, so that a batch holds little padding.

    Lengths are equal within `bucket` tokens, and ties keep the given order: a row's batch is another one in every epoch. The
    order of the batches is random.
    """
    batches: list[list[int]] = []
    for pool in order.split(size * _POOL):
        rows = sorted(pool.tolist(), key=lambda row: length(row) // bucket)
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


@dataclass(frozen=True)
class Size:
    """The cost of one forward pass: tokens, padding included, and target tokens, each of which needs a row of logits."""

    tokens: int
    targets: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.tokens + other.tokens, self.targets + other.targets)

    def fits(self, limit: "Size") -> bool:
        """Whether this size is within a limit."""
        return self.tokens <= limit.tokens and self.targets <= limit.targets


def split_parts_by_length(
    chosen: Sequence[int], length: Callable[[int], int], targets: Callable[[int], int], *, limit: Size, padding: int
) -> list[list[int]]:
    """Indexes into `chosen`, shortest rows first, in parts within `limit` that hold at most `padding` tokens of padding.

    A row that exceeds the limit is a part of its own.
    """
    parts: list[list[int]] = []
    part_tokens = part_targets = 0  # of the last part's rows, without padding
    for index in sorted(range(len(chosen)), key=lambda index: length(chosen[index])):
        row_tokens, row_targets = length(chosen[index]), targets(chosen[index])
        part = parts[-1] if parts else []
        size = Size((len(part) + 1) * row_tokens, part_targets + row_targets)
        if part and size.fits(limit) and size.tokens - part_tokens - row_tokens <= padding:
            part.append(index)
            part_tokens, part_targets = part_tokens + row_tokens, part_targets + row_targets
        else:
            parts.append([index])
            part_tokens, part_targets = row_tokens, row_targets
    return parts
