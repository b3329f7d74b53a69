"""Gradient accumulation for a step that is taken only if one of its parts needs it. Knows no model."""

from collections.abc import Sequence

from torch import Tensor

from service.editors.locft.batching import Size


class GradientAccumulation:
    """The loss terms of the parts of a batch, until it is known whether the step is taken.

    Terms keep their graphs up to a limit of size. The graphs of further parts are released; if the step is taken, these parts are
    computed again.
    """

    def __init__(self, limit: Size) -> None:
        self._limit, self._graph_size = limit, Size(0, 0)
        self._terms: list[tuple[Sequence[int], Tensor]] = []
        self._released: list[Sequence[int]] = []

    def make_room_for(self, size: Size) -> None:
        """Release graphs if a part of this size would exceed the limit. Called before the part is computed."""
        total = self._graph_size + size
        if self._terms and not total.fits(self._limit):
            self._released += [part for part, _ in self._terms]
            self._terms.clear()
            total = size
        self._graph_size = total

    def add(self, part: Sequence[int], term: Tensor) -> None:
        """A part and its share of the loss."""
        self._terms.append((part, term))

    def pop_released(self) -> list[Sequence[int]]:
        """The parts whose graphs were released. A second call returns none of them."""
        parts, self._released = self._released, []
        return parts

    def backward(self) -> None:
        """Add up the gradients of the terms with graphs, and free the graphs."""
        while self._terms:
            self._terms.pop(0)[1].backward()
        self._graph_size = Size(0, 0)
