"""How the rows of one fit are run: on which view, from which block on, and giving way to whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.editors.baft.forward_passes import CachedPasses, Passes, PlainPasses
from service.editors.baft.prepared_rows import prepare
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.overlay import View
from service.lm.prompts import Row

_SETTLED_KEPT = 2  # of the head's tensors and of those being trained


@dataclass(frozen=True, eq=False)
class Runs:
    """How rows are run through a view: cached from block `at` on, or plainly."""

    view: View
    first_block: int
    last: int
    cached: bool
    hooks: Hooks

    def passes(self, rows: Sequence[Row]) -> Passes:
        """Passes over rows."""
        kind = CachedPasses if self.cached else PlainPasses
        return kind(self.view, rows, first_block=self.first_block, last=self.last, hooks=self.hooks)

    def passes_with(self, rows: Sequence[Row], consolidated: Sequence[Row], neutral: NeutralSentences) -> Passes:
        """Passes over rows and, behind them, rows of consolidated items, which stay prepared between fits."""
        if not self.cached or not consolidated:
            return self.passes([*rows, *consolidated])
        prepared = neutral.ready(
            ("consolidated", self.view.tensors_digest, self.first_block, self.last, tuple(consolidated)),
            lambda: prepare(self.view, consolidated, first_block=self.first_block, last=self.last, hooks=self.hooks),
            keep=_SETTLED_KEPT,
        )
        return CachedPasses(self.view, rows, first_block=self.first_block, last=self.last, hooks=self.hooks, more=prepared)
