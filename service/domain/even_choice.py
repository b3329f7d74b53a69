"""An even choice from a sequence."""

from collections.abc import Sequence
from typing import TypeVar

Element = TypeVar("Element")


def choose_evenly(elements: Sequence[Element], most: int) -> tuple[Element, ...]:
    """At most `most` elements, evenly spaced; always the same ones."""
    count = min(most, len(elements))
    return tuple(elements[index * len(elements) // count] for index in range(count))
