"""Losses whose gradients are wanted only if a step is taken, which the last of them may decide. Knows no model."""

from collections.abc import Sequence

from torch import Tensor

from service.editors.locft.batching import Size


class GradientAccumulation:
    """Parts of a batch whose gradients are wanted only if one of them has something to teach.

    As many keep their graphs as there is room for. The others let go of them, and are to be learned again if it comes to that.
    """

    def __init__(self, room: Size) -> None:
        self._room, self._held = room, Size(0, 0)
        self._terms: list[tuple[Sequence[int], Tensor]] = []
        self._without: list[Sequence[int]] = []

    def make_room_for(self, size: Size) -> None:
        """Called before a part of this size is computed."""
        together = self._held + size
        if self._terms and not together.fits(self._room):
            self._without += [part for part, _ in self._terms]
            self._terms.clear()
            together = size
        self._held = together

    def add(self, part: Sequence[int], term: Tensor) -> None:
        """A part and its share of the loss."""
        self._terms.append((part, term))

    def let_go(self) -> list[Sequence[int]]:
        """The parts that have no graph any more, for once."""
        parts, self._without = self._without, []
        return parts

    def backward(self) -> None:
        """Gathers the gradients of those that have, and lets go of their graphs."""
        while self._terms:
            self._terms.pop(0)[1].backward()
        self._held = Size(0, 0)
