"""Asking a version what it keeps, in passes over rows that were prepared up to where its adapter acts.

A row out of the adapter's scope is answered by the version's tensors, so it is asked once for them and not for every adapter.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from service.editors.answer_margins import answered_mask
from service.editors.cache import KeyedCache
from service.editors.protocol import Hooks
from service.lm.cached_step import PrefilledRows, prefill, resume
from service.lm.intervention import Adapter, Intervention
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import Row, collate
from service.lm.sampling import greedy_tokens
from service.lm.scoped_rows import choose_in_scope
from service.lm.scoring import greedy_matches
from service.locality.prose import ProseChange

ROWS_AT_ONCE = 16  # whole distributions of both models are in memory for these
_KEPT_PREPARATIONS = 3  # for the base, for the tensors of the head and for those in training


class LocalityAsker:
    """Asks versions of one base what they keep of its answers. What an adapter cannot change is computed once for a view."""

    def __init__(self, base_view: View) -> None:
        self._base_view = base_view
        self._cache = KeyedCache()

    def ask(self, name: str, rows: Sequence[Row], view: View, adapter: Adapter | None, hooks: Hooks) -> list[bool]:
        """By row, whether the whole target, an answer of the base, is the version's greedy answer. `name` is that of fixed rows,
        which are prepared; rows without a name are asked once.
        """
        if adapter is None:
            return _ask_once(view, rows, None, hooks)
        chosen = choose_in_scope(view.base, adapter, rows)
        if len(chosen) == len(rows):
            matches = [False] * len(rows)
        elif self._is_base(view):
            matches = [True] * len(rows)
        elif name:
            matches = self._ask_tensors(name, rows, view, adapter, hooks)
        else:
            return _ask_once(view, rows, adapter, hooks)
        if name:
            prepared = _select(self.prepare(name, rows, view, adapter, hooks), chosen) if chosen else ()
            answers = [is_match for part in _steps(prepared, hooks) for is_match in _matches(view, part, adapter.interventions)]
        else:
            answers = _ask_once(view, [rows[row] for row in chosen], adapter, hooks)
        for row, is_match in zip(chosen, answers, strict=True):
            matches[row] = is_match
        return matches

    def compare(self, name: str, rows: Sequence[Row], view: View, adapter: Adapter | None, hooks: Hooks) -> list[ProseChange]:
        """By row, how the version reads its target, beside the base model."""
        changes: list[ProseChange] = []
        for part_name, part in self.split(name, rows):
            hooks.begin_step()
            changes += self._compare_part(part_name, part, view, adapter, hooks)
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

    def _is_base(self, view: View) -> bool:
        return view.tensors_digest == self._base_view.tensors_digest

    def _ask_tensors(self, name: str, rows: Sequence[Row], view: View, adapter: Adapter, hooks: Hooks) -> list[bool]:
        """The matches of a view without any adapter."""

        def ask() -> list[bool]:
            parts = _steps(self.prepare(name, rows, view, adapter, hooks), hooks)
            return [is_match for part in parts for is_match in _matches(view, part, {})]

        return list(self._cache.get_or_make(_tensors_key(name, view, adapter), ask, keep=_KEPT_PREPARATIONS))

    @torch.no_grad()
    def _compare_part(
        self, name: str, rows: Sequence[Row], view: View, adapter: Adapter | None, hooks: Hooks
    ) -> list[ProseChange]:
        if adapter is None:
            batch = collate(view.base, rows)
            return _changes(rows, compute_target_logits(self._base_view, batch, None), compute_target_logits(view, batch, None))
        chosen = choose_in_scope(view.base, adapter, rows)
        everything = range(len(rows))
        if len(chosen) == len(rows):
            return self._compare_rows(name, rows, everything, view, adapter, adapter.interventions, hooks)
        if self._is_base(view):
            changes = [ProseChange(1.0, 0.0, len(row.target_ids)) for row in rows]
        else:
            changes = list(
                self._cache.get_or_make(
                    _tensors_key(name, view, adapter),
                    lambda: self._compare_rows(name, rows, everything, view, adapter, {}, hooks),
                    keep=_KEPT_PREPARATIONS,
                )
            )
        moved = self._compare_rows(name, rows, chosen, view, adapter, adapter.interventions, hooks) if chosen else []
        for row, change in zip(chosen, moved, strict=True):
            changes[row] = change
        return changes

    def _compare_rows(
        self,
        name: str,
        rows: Sequence[Row],
        chosen: Sequence[int],
        view: View,
        adapter: Adapter,
        interventions: Mapping[int, Intervention],
        hooks: Hooks,
    ) -> list[ProseChange]:
        """How the view reads the chosen rows under interventions, beside the base, in batches of one shape."""
        before = _select(self.prepare(name, rows, self._base_view, adapter, hooks), chosen)
        after = _select(self.prepare(name, rows, view, adapter, hooks), chosen)
        return _changes(
            [rows[row] for row in chosen],
            torch.cat([resume(self._base_view, part, {}).logits for part in before]),
            torch.cat([resume(view, part, interventions).logits for part in after]),
        )


def _parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]


def _tensors_key(name: str, view: View, adapter: Adapter) -> tuple:
    return (f"{name} without an adapter", view.tensors_digest, adapter.first_block, adapter.last)


def _ask_once(view: View, rows: Sequence[Row], adapter: Adapter | None, hooks: Hooks) -> list[bool]:
    return [is_match for part in hooks.split(rows, len) for is_match in greedy_matches(view, part, adapter)]


def _steps(parts: Iterable[PrefilledRows], hooks: Hooks) -> Iterator[PrefilledRows]:
    for part in parts:
        hooks.begin_step()
        yield part


def _select(parts: Sequence[PrefilledRows], chosen: Sequence[int]) -> list[PrefilledRows]:
    """The chosen rows, in ascending order, of parts that are counted end to end."""
    selected, start = list[PrefilledRows](), 0
    for part in parts:
        own = [row - start for row in chosen if start <= row < start + len(part)]
        if own:
            selected.append(part if len(own) == len(part) else part.select(own))
        start += len(part)
    return selected


@torch.no_grad()
def _matches(view: View, prepared: PrefilledRows, interventions: Mapping[int, Intervention]) -> list[bool]:
    output = resume(view, prepared, interventions)
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
