"""Forward passes of fixed rows under changing interventions: what the objective needs of the model, plain or cached.

Both ways give the same numbers to rounding. Knows no loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from service.editors.baft.objective import position_means
from service.editors.baft.prepared_rows import Prepared, joined, prepare
from service.editors.protocol import Hooks
from service.lm.intervention import Intervention
from service.lm.overlay import Recording, View, compute_logits
from service.lm.prompts import Row, collate
from service.lm.resume import PrefilledRows, resume


@dataclass(frozen=True, eq=False)
class Pass:
    """What rows gave: for the N target tokens in order of rows, and the gate weights by block, averaged over positions."""

    final: Tensor  # (N, D) behind the final norm
    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    row_of: Tensor  # (N,) which of the chosen rows
    weights: Mapping[int, Tensor]  # block: (B, R); empty unless recorded


class Passes(Protocol):
    """Runs chosen rows of a fixed list."""

    def __call__(self, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool = False) -> Pass:
        """The chosen rows, by index, under these interventions; gradients flow to them."""
        ...

    def places(self) -> Tensor:
        """(rows, D): where each row stands before any intervention: its mean state at the intervened end of its prompt."""
        ...


class PlainPasses:
    """Whole sequences through the whole model, every time."""

    def __init__(self, view: View, rows: Sequence[Row], *, first_block: int, last: int, hooks: Hooks) -> None:
        self._view, self._rows, self._first_block, self._last, self._hooks = view, rows, first_block, last, hooks

    def __call__(self, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool = False) -> Pass:
        batch = collate(self._view.base, [self._rows[index] for index in chosen], last=self._last)
        recording = Recording()
        out = compute_logits(self._view, batch, interventions, keep=batch.predicting, recording=recording, record=record)
        weights = {block: position_means(seen, batch.positions) for block, seen in recording.weights.items()}
        assert recording.final is not None
        return Pass(recording.final, out, batch.labels, batch.row_of, weights)

    def places(self) -> Tensor:
        if not self._rows:
            return Prepared(()).positions()
        return prepare(self._view, self._rows, first_block=self._first_block, last=self._last, hooks=self._hooks).positions()


class CachedPasses:
    """What no intervention reaches is computed once; a call runs the blocks above the first intervened one over the row ends."""

    def __init__(
        self, view: View, rows: Sequence[Row], *, first_block: int, last: int, hooks: Hooks, more: Prepared | None = None
    ) -> None:
        """`more` are rows prepared before; they stand behind the others."""
        self._view = view
        own = [prepare(view, rows, first_block=first_block, last=last, hooks=hooks)] if rows else []
        self._whole = joined([*own, *([] if more is None else [more])])
        self._selected: tuple[tuple[int, ...], PrefilledRows] | None = None

    def __call__(self, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool = False) -> Pass:
        seen = resume(self._view, self._select(tuple(chosen)), interventions, record=record)
        weights = {block: position_means(each, seen.positions) for block, each in seen.recording.weights.items()}
        return Pass(seen.final, seen.logits, seen.labels, seen.row_of, weights)

    def places(self) -> Tensor:
        return self._whole.positions()

    def _select(self, chosen: tuple[int, ...]) -> PrefilledRows:
        """The chosen rows; most fits choose the same ones in every step, so the last choice is kept."""
        if self._selected is None or self._selected[0] != chosen:
            self._selected = (chosen, self._whole.select(chosen))
        return self._selected[1]
