"""How many contrast rows an edit gets. Plain numbers, no model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ContrastCounts:
    """How many contrast rows of each kind an edit gets at most."""

    others: int
    mentions: int
    own: int
    questions: int = 0
    passages: int = 0


NO_CONTRAST = ContrastCounts(0, 0, 0)


def count_contrast(weight: float, counts: ContrastCounts) -> ContrastCounts:
    """The rows of each kind; none without a weight."""
    return counts if weight else NO_CONTRAST
