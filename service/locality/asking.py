"""Asking a version what it keeps, in passes over rows that were prepared up to where its adapter acts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from service.editors.answer_margins import answered_mask
from service.editors.cache import KeyedCache
from service.editors.protocol import Hooks
from service.lm.cached_step import PrefilledRows, prefill, resume
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import Row, collate
from service.lm.sampling import greedy_tokens
from service.lm.scoring import greedy_matches
from service.locality.prose import ProseChange

ROWS_AT_ONCE = 16  # whole distributions of both models are in memory for these
_KEPT_PREPARATIONS = 3  # for the base, for the tensors of the head and for those in training


class LocalityAsker:
    """Asks versions of one base. What an adapter cannot change is computed once for a view and kept."""

    def __init__(self, base_view: View) -> None:
        self._base_view = base_view
        self._cache = KeyedCache()

    def ask(self, name: str, rows: Sequence[Row], view: View, adapter: Adapter | None, hooks: Hooks) -> list[bool]:
        """By row, whether the whole target is the version's greedy answer. `name` is that of fixed rows, which are prepared; rows
        without a name are asked once.
        """
        matches: list[bool] = []
        if adapter is None or not name:
            for part in hooks.split(rows, len):
                matches += greedy_matches(view, part, adapter)
            return matches
        for prepared in self.prepare(name, rows, view, adapter, hooks):
            hooks.begin_step()
            matches += _matches(view, prepared, adapter)
        return matches

    def compare(self, name: str, rows: Sequence[Row], view: View, adapter: Adapter | None, hooks: Hooks) -> list[ProseChange]:
        """By row, how the version reads its target, beside the base model."""
        changes: list[ProseChange] = []
        for part_name, part in self.split(name, rows):
            hooks.begin_step()
            before, after = self._both(part_name, part, view, adapter, hooks)
            changes += _changes(part, before, after)
        return changes

    def split(self, name: str, rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
        """The parts in which `compare` asks rows, each with its name."""
        return [(f"{name} {number}", part) for number, part in enumerate(_parts(rows))]

    @torch.no_grad()
    def compare_alone(self, rows: Sequence[Row], hooks: Hooks) -> list[ProseChange]:
        """By row, how the base model reads its target alone, beside itself in batches: the noise of rounding."""
        changes: list[ProseChange] = []
        for part in _parts(rows):
            together = compute_target_logits(self._base_view, collate(self._base_view.base, part), None)
            alone = []
            for row in part:
                hooks.begin_step()
                alone.append(compute_target_logits(self._base_view, collate(self._base_view.base, [row]), None))
            changes += _changes(part, together, torch.cat(alone))
        return changes

    def prepare(
        self, name: str, rows: Sequence[Row], view: View, adapter: Adapter, hooks: Hooks, *, ahead: bool = False
    ) -> Sequence[PrefilledRows]:
        """Rows computed up to the adapter's first block, in parts. Cached by name, view and first block."""
        first_block, last = adapter.first_block, adapter.last
        return self._cache.get_or_make(
            (name, view.tensors_digest, first_block, last),
            lambda: [prefill(view, part, first_block=first_block, last=last) for part in hooks.split(rows, len)],
            keep=_KEPT_PREPARATIONS,
            ahead=ahead,
        )

    @torch.no_grad()
    def _both(self, name: str, rows: Sequence[Row], view: View, adapter: Adapter | None, hooks: Hooks) -> tuple[Tensor, Tensor]:
        """The logits (N, V) of the base and of the version, in batches of one shape."""
        if adapter is None:
            batch = collate(view.base, rows)
            return compute_target_logits(self._base_view, batch, None), compute_target_logits(view, batch, None)
        before = self.prepare(name, rows, self._base_view, adapter, hooks)
        after = self.prepare(name, rows, view, adapter, hooks)
        return (
            torch.cat([resume(self._base_view, part, {}).logits for part in before]),
            torch.cat([resume(view, part, adapter.interventions).logits for part in after]),
        )


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]


@torch.no_grad()
def _matches(view: View, prepared: PrefilledRows, adapter: Adapter) -> list[bool]:
    output = resume(view, prepared, adapter.interventions)
    return answered_mask(output.logits, output.labels, output.row_of, len(prepared), 0.0).tolist()


def _changes(rows: Sequence[Row], before: Tensor, after: Tensor) -> list[ProseChange]:
    is_kept = (greedy_tokens(before) == greedy_tokens(after)).float().cpu()  # (N,)
    old, new = before.float().log_softmax(-1), after.float().log_softmax(-1)
    divergences = (old.exp() * (old - new)).sum(-1).clamp(min=0).cpu()  # (N,)
    changes, start = [], 0
    for row in rows:
        end = start + len(row.target_ids)
        changes.append(ProseChange(float(is_kept[start:end].mean()), float(divergences[start:end].mean()), end - start))
        start = end
    return changes
