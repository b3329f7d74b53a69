"""Running the rows of one fit: the view, the first block that is run, and the hooks that give way."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.editors.baft.forward_passes import CachedPasses, ForwardPasses, PlainPasses
from service.editors.baft.prepared_rows import prepare_rows
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.last_tokens import LastTokens
from service.lm.overlay import View
from service.lm.prompts import Row

_KEPT_PREPARATIONS = 2  # for the tensors of the head and for those in training


@dataclass(frozen=True, eq=False)
class RowRunner:
    """Makes forward passes over rows of a view: cached from `first_block` on, or over whole sequences."""

    view: View
    first_block: int
    last: LastTokens
    is_cached: bool
    hooks: Hooks

    def make_passes(self, rows: Sequence[Row]) -> ForwardPasses:
        """Passes over rows."""
        kind = CachedPasses if self.is_cached else PlainPasses
        return kind(self.view, rows, first_block=self.first_block, last=self.last, hooks=self.hooks)

    def make_passes_with(self, rows: Sequence[Row], consolidated: Sequence[Row], neutral: NeutralSentences) -> ForwardPasses:
        """Passes over `rows`, then rows of consolidated items, whose preparation is cached between fits."""
        if not self.is_cached or not consolidated:
            return self.make_passes([*rows, *consolidated])
        prepared = neutral.get_or_make(
            ("consolidated", self.view.tensors_digest, self.first_block, self.last, tuple(consolidated)),
            lambda: prepare_rows(self.view, consolidated, first_block=self.first_block, last=self.last, hooks=self.hooks),
            keep=_KEPT_PREPARATIONS,
        )
        return CachedPasses(self.view, rows, first_block=self.first_block, last=self.last, hooks=self.hooks, more=prepared)
