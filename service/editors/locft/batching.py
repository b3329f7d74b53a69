"""Which rows an epoch passes over, and in which batches: functions of what is right so far and of a generator. Knows no tensors
of a model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_POOL = 64  # batches that are sorted by length together: rows of like length meet others of the whole epoch


def rows_to_visit(right: Tensor, consolidated: Tensor, *, revisit: float, replay: float, generator: torch.Generator) -> Tensor:
    """The rows of one epoch, in random order, for `right` and `consolidated` (rows,) bool: every row that is not right, a share
    `revisit` of the new ones that are, and `replay` consolidated ones for each new row. The number of consolidated rows costs
    nothing.
    """
    open_, own, old = (mask.nonzero()[:, 0] for mask in (~right, right & ~consolidated, right & consolidated))
    new = max(int((~consolidated).sum()), len(open_))
    chosen = [open_, _some(own, math.ceil(revisit * len(own)), generator), _some(old, math.ceil(replay * new), generator)]
    return _shuffled(torch.cat(chosen).sort().values, generator)


def _some(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows if count >= len(rows) else _shuffled(rows, generator)[:count]


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def batches(order: Tensor, size: int) -> list[list[int]]:
    """Rows in the order given, cut into batches; the last one may be smaller. As the reference code does."""
    return [chosen.tolist() for chosen in order.split(size)] if len(order) else []


def batches_by_length(
    order: Tensor, size: int, *, length: Callable[[int], int], bucket: int, generator: torch.Generator
) -> list[list[int]]:
    """The same, but with rows of like length together, so that a batch holds little padding.

    Lengths count as the same within `bucket` tokens, and ties stay in the order given: rows meet others in every epoch. The order
    of the batches is random again.
    """
    cut: list[list[int]] = []
    for pool in order.split(size * _POOL):
        rows = sorted(pool.tolist(), key=lambda row: length(row) // bucket)
        cut += [rows[start : start + size] for start in range(0, len(rows), size)]
    return [cut[place] for place in torch.randperm(len(cut), generator=generator).tolist()]


@dataclass(frozen=True)
class Size:
    """What rows that go through the model together cost: tokens, padding included, and target tokens, each a row of logits."""

    tokens: int
    targets: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.tokens + other.tokens, self.targets + other.targets)

    def fits(self, room: "Size") -> bool:
        """Whether there is room for this."""
        return self.tokens <= room.tokens and self.targets <= room.targets


def parts_by_length(
    chosen: Sequence[int], length: Callable[[int], int], targets: Callable[[int], int], *, room: Size, padding: int
) -> list[list[int]]:
    """Places in `chosen`, shortest rows first, cut so that each part fits the `room` and holds no more than `padding` tokens of
    padding. A row that is longer goes alone.
    """
    parts: list[list[int]] = []
    held = asked = 0  # tokens and target tokens of the last part's rows
    for place in sorted(range(len(chosen)), key=lambda place: length(chosen[place])):
        longest, answered = length(chosen[place]), targets(chosen[place])
        part = parts[-1] if parts else []
        size = Size((len(part) + 1) * longest, asked + answered)
        if part and size.fits(room) and size.tokens - held - longest <= padding:
            part.append(place)
            held, asked = held + longest, asked + answered
        else:
            parts.append([place])
            held, asked = longest, answered
    return parts
