"""How many contrast rows an edit gets. Plain numbers, no model."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ContrastCounts:
    """How many contrast rows of each kind an edit gets at most."""

    others: int
    mentions: int
    own: int
    questions: int = 0
    passages: int = 0


NO_CONTRAST = ContrastCounts(0, 0, 0)


class ContrastSettings(Protocol):
    """The settings of a method that has contrast rows."""

    @property
    def contrast(self) -> int: ...
    @property
    def contrast_mentions(self) -> int: ...
    @property
    def contrast_own(self) -> int: ...
    @property
    def contrast_questions(self) -> int: ...
    @property
    def contrast_passages(self) -> int: ...
    @property
    def contrast_weight(self) -> float: ...


def count_contrast(settings: ContrastSettings) -> ContrastCounts:
    """The rows of each kind; none without a weight."""
    if not settings.contrast_weight:
        return NO_CONTRAST
    return ContrastCounts(
        settings.contrast,
        settings.contrast_mentions,
        settings.contrast_own,
        settings.contrast_questions,
        settings.contrast_passages,
    )
