"""Fitting a whole window on top of tensors: the policy of a refit and of a catch-up."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from service.domain import liveset
from service.domain.edit import Edit
from service.domain.liveset import LiveSet
from service.editors.protocol import FitResult, IncrementalEditor
from service.lifecycle.context import EditingContext
from service.lifecycle.fit_inputs import items_of, seed_of
from service.lifecycle.fit_loop import FitRound
from service.lifecycle.kept_edits import kept_items
from service.lm.overlay import Overlay


@dataclass
class WindowPolicy:
    """Fits the window of `live_set` on `tensors`. A live edit of the window that a fit loses is left out.

    If a fit loses consolidated edits and nothing else, the newest of the `additions` (edit ids) is left out; without additions
    the fit counts. The last fit counts in any case: the edits that it lost are not live any more, and the live set records that
    the overlay was trained on them. `drop_reasons` maps the edits that were left out to the reason.
    """

    context: EditingContext
    editor: IncrementalEditor
    tensors: Overlay
    live_set: LiveSet
    known: Mapping[str, Edit]
    lost_reason: str
    failures: int = 0  # failed fits of the job: each gives another seed
    additions: Collection[str] = ()
    addition_reason: str = ""
    drop_reasons: dict[str, str] = field(default_factory=dict)

    def next_round(self) -> FitRound | None:
        """The window as it is now, with the base's answers for its tombstones."""
        live_set = liveset.reset_window(self.live_set)
        unanswered = [item.edit_id for item in live_set.window if item.is_tombstone and item.answer is None]
        answers = {edit_id: self.context.editors.base_answer(self.known[edit_id]) for edit_id in unanswered}
        self.live_set = liveset.set_tombstone_answers(live_set, answers)
        if not self.live_set.window:
            return None
        items = items_of(self.live_set.window, self.known)
        kept = kept_items(self.context, self.editor, self.live_set, items, self.known)
        return FitRound(self.tensors, items, kept, seed_of([item.edit for item in items], self.failures))

    def take(self, fitted: FitResult, *, is_last: bool) -> FitResult | None:
        """A fit for which no live edit of the window has to be left out any more."""
        lost = [item for item in self.live_set.window if item.is_live and item.edit_id in fitted.lost]
        self.drop_reasons |= {item.edit_id: self.lost_reason for item in lost}
        if not lost and not is_last and any(item.edit_id in fitted.lost for item in self.live_set.consolidated):
            lost = [item for item in self.live_set.window if item.edit_id in self.additions][-1:]
            self.drop_reasons |= {item.edit_id: self.addition_reason for item in lost}
        if lost:
            self.live_set = liveset.mark_lost(self.live_set, lost)
        return fitted if is_last or not lost else None
