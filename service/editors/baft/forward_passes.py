"""Forward passes of fixed rows under changing interventions, over whole sequences or cached.

Both ways give the same numbers to rounding. Knows no loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from service.editors.baft.objective import position_means
from service.editors.baft.prepared_rows import PreparedRows, join_rows, prepare_rows
from service.editors.protocol import Hooks
from service.lm.cached_step import PrefilledRows, resume
from service.lm.intervention import Intervention
from service.lm.last_tokens import LastTokens
from service.lm.overlay import Recording, View, compute_logits
from service.lm.prompts import Row, collate


@dataclass(frozen=True, eq=False)
class PassOutput:
    """The output at the N target tokens, in order of rows, and the gate weights by block, averaged over positions."""

    final: Tensor  # (N, D) behind the final norm
    logits: Tensor  # (N, V)
    labels: Tensor  # (N,)
    row_of: Tensor  # (N,) index among the chosen rows
    weights: Mapping[int, Tensor]  # block: (B, R); empty unless recorded


class ForwardPasses(Protocol):
    """Runs chosen rows of a fixed list."""

    def __call__(self, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool = False) -> PassOutput:
        """The chosen rows, by index, under these interventions; gradients flow to them."""
        ...

    def prompt_states(self) -> Tensor:
        """(rows, D): each row's mean hidden state at the intervened prompt positions, before any intervention."""
        ...


class PlainPasses:
    """Whole sequences through the whole model, in every call."""

    def __init__(self, view: View, rows: Sequence[Row], *, first_block: int, last: LastTokens, hooks: Hooks) -> None:
        self._view, self._rows, self._first_block, self._last, self._hooks = view, rows, first_block, last, hooks

    def __call__(self, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool = False) -> PassOutput:
        batch = collate(self._view.base, [self._rows[index] for index in chosen], last=self._last)
        recording = Recording()
        logits = compute_logits(
            self._view, batch, interventions, head_mask=batch.prediction_mask, recording=recording, record=record
        )
        weights = {block: position_means(gates, batch.positions) for block, gates in recording.weights.items()}
        assert recording.final is not None
        return PassOutput(recording.final, logits, batch.labels, batch.row_of, weights)

    def prompt_states(self) -> Tensor:
        if not self._rows:
            return PreparedRows(()).prompt_states()
        return prepare_rows(
            self._view, self._rows, first_block=self._first_block, last=self._last, hooks=self._hooks
        ).prompt_states()


class CachedPasses:
    """States that no intervention reaches are computed once. A call runs the suffixes through the upper blocks alone."""

    def __init__(
        self,
        view: View,
        rows: Sequence[Row],
        *,
        first_block: int,
        last: LastTokens,
        hooks: Hooks,
        more: PreparedRows | None = None,
    ) -> None:
        """`more` are further prepared rows; their indexes follow those of `rows`."""
        self._view = view
        own = [prepare_rows(view, rows, first_block=first_block, last=last, hooks=hooks)] if rows else []
        self._prepared = join_rows([*own, *([] if more is None else [more])])
        self._selected: tuple[tuple[int, ...], PrefilledRows] | None = None

    def __call__(self, chosen: Sequence[int], interventions: Mapping[int, Intervention], *, record: bool = False) -> PassOutput:
        output = resume(self._view, self._select(tuple(chosen)), interventions, record=record)
        weights = {block: position_means(gates, output.positions) for block, gates in output.recording.weights.items()}
        return PassOutput(output.final, output.logits, output.labels, output.row_of, weights)

    def prompt_states(self) -> Tensor:
        return self._prepared.prompt_states()

    def _select(self, chosen: tuple[int, ...]) -> PrefilledRows:
        """The chosen rows. Most fits choose the same rows in every step, so the last selection is kept."""
        if self._selected is None or self._selected[0] != chosen:
            self._selected = (chosen, self._prepared.select(chosen))
        return self._selected[1]
