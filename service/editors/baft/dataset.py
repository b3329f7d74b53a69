"""The rows that one fit learns or keeps, with their forward passes. Knows no optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from service.editors.baft.forward_passes import ForwardPasses
from service.editors.baft.preserve_term import NeutralPool, PreservedRows, nearest_rows, prepare_pool
from service.editors.baft.row_runner import RowRunner
from service.editors.baft.settings import BaftSettings
from service.editors.contrast import ContrastPrompts, contrast_rows
from service.editors.contrast_counts import NO_CONTRAST
from service.editors.edit_scope import make_scope
from service.editors.examples import ItemRow, add_prefix, item_rows, locality_rows, make_mention_test, served_row
from service.editors.known_names import KnownNames
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row
from service.lm.scope import Scope
from service.lm.scoped_rows import read_prompt

_CONTRASTED = 8  # new items, and items of the window, with contrast rows in a fit
_NEAR_CONSOLIDATED = 16  # consolidated rows that count as near a new row


@dataclass(frozen=True, eq=False)
class BaftDataset:
    """`rows[:new_end]` are rows of new items, `rows[new_end:window_end]` rows of the window, the rest rows of consolidated items.

    `passes` runs rows by index. `near_consolidated` are indexes of the consolidated rows that are near new rows.

    The fit preserves `pool_candidates` of `pool`, the `pool_near` ones more often, and all `locality` rows (trained locality
    probes). `contrast` holds contrast rows: `contrast_new` of new items, then some of the window. `unrelated` is the input of the
    margin term.

    `scope` is that of the adapter over these items: every row of new items and of the window is in it. None: every prompt.
    """

    rows: Sequence[ItemRow]
    scope: Scope | None
    new_end: int
    window_end: int
    passes: ForwardPasses
    near_consolidated: Sequence[int]
    pool: NeutralPool | None
    pool_candidates: Sequence[int]
    pool_near: Sequence[int]
    locality: PreservedRows | None
    locality_count: int
    contrast: PreservedRows | None
    contrast_new: int
    contrast_count: int
    unrelated: ForwardPasses | None
    unrelated_count: int


def build_dataset(
    runner: RowRunner,
    items: Sequence[FitItem],
    new: int,
    *,
    settings: BaftSettings,
    neutral: NeutralSentences,
    names: KnownNames,
    generator: torch.Generator,
) -> BaftDataset:
    """Encode all rows and compute the states that no step changes. `items[:new]` are learned, the others kept."""
    base = runner.view.base
    rows = item_rows(base, items, eos=settings.eos, learn_probes=settings.learn_probes)
    new_rows = [row for row in rows if row.item < new]
    new_rows += _rows_with_prefixes(base, new_rows, settings.prefixes, neutral, generator)
    window = [row for row in rows if row.item >= new and not items[row.item].is_consolidated]
    in_fit = [item for item in items if not item.is_consolidated]
    has_scope = settings.scope == "auto"
    scope = make_scope(base, in_fit, [*new_rows, *window], names=names, neutral=neutral) if has_scope else None
    kept = [row for row in rows if row.is_literal and items[row.item].is_consolidated]
    consolidated = _choose_kept(base, kept, scope, settings.consolidated_pool)
    passes = runner.make_passes_with([row.row for row in (*new_rows, *window)], [row.row for row in consolidated], neutral)
    states = passes.prompt_states()
    pool = prepare_pool(runner, neutral, settings) if settings.preserve_weight > 0 else None
    candidates = pool.select_candidates(make_mention_test(in_fit)) if pool else []
    probes = locality_rows(base, runner.view, items) if pool and settings.learn_probes else []
    new_contrast, window_contrast = _contrast_rows(runner, items, new, settings, neutral, names, generator)
    contrast = [*new_contrast, *window_contrast]
    unrelated = _unrelated_rows(runner.view, items[:new]) if settings.margin else []
    new_end, window_end = len(new_rows), len(new_rows) + len(window)
    near = nearest_rows(states[window_end:], states[:new_end], _NEAR_CONSOLIDATED)
    return BaftDataset(
        rows=[*new_rows, *window, *consolidated],
        scope=scope,
        new_end=new_end,
        window_end=window_end,
        passes=passes,
        near_consolidated=[window_end + index for index in near],
        pool=pool,
        pool_candidates=candidates,
        pool_near=pool.select_near(states[:new_end], candidates, settings.preserve_near) if pool else [],
        locality=PreservedRows(runner, probes, runner.make_passes(probes)) if probes else None,
        locality_count=len(probes),
        contrast=PreservedRows(runner, contrast, runner.make_passes(contrast)) if contrast else None,
        contrast_new=len(new_contrast),
        contrast_count=len(contrast),
        unrelated=runner.make_passes(unrelated) if unrelated else None,
        unrelated_count=len(unrelated),
    )


def _choose_kept(base: Base, rows: Sequence[ItemRow], scope: Scope | None, most: int) -> list[ItemRow]:
    """All rows, or `most` of them: those in scope first, for the adapter moves no other. The same rows give the same choice."""
    if len(rows) <= most:
        return list(rows)
    is_inside = [scope is None or scope.covers(read_prompt(base, row.row.prompt_ids)) for row in rows]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = sorted(order, key=lambda index: not is_inside[index])[:most]
    return [rows[index] for index in sorted(chosen)]


def _contrast_rows(
    runner: RowRunner,
    items: Sequence[FitItem],
    new: int,
    settings: BaftSettings,
    neutral: NeutralSentences,
    names: KnownNames,
    generator: torch.Generator,
) -> tuple[list[Row], list[Row]]:
    """The contrast rows of some new items, and a sample of those of some items of the window."""
    counts = settings.contrast_counts
    if counts == NO_CONTRAST:
        return [], []
    in_fit = [item for item in items if not item.is_consolidated]
    prompts = ContrastPrompts(runner.view.base.surfaces, in_fit, names)
    chosen = sorted(sample(range(new), _CONTRASTED, generator))
    window = sorted(sample(range(new, len(in_fit)), _CONTRASTED, generator))

    def rows_of(index: int) -> list[Row]:
        return contrast_rows(runner.view, prompts, index, counts, neutral, runner.hooks)

    of_new = [row for index in chosen for row in rows_of(index)]
    of_window = [row for index in window for row in rows_of(index)]
    drawn = sorted(sample(range(len(of_window)), settings.contrast_rows, generator))
    return of_new, [of_window[index] for index in drawn]


def sample(indexes: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    """At most `count` of the indexes, drawn without repeats."""
    order = torch.randperm(len(indexes), generator=generator)[:count].tolist()
    return [indexes[position] for position in order]


def _rows_with_prefixes(
    base: Base, new_rows: Sequence[ItemRow], count: int, neutral: NeutralSentences, generator: torch.Generator
) -> list[ItemRow]:
    """Copies of the literal rows after starts of sentences that the base model wrote."""
    prefixes = neutral.prefixes(count, generator) if count else []
    copies = [add_prefix(base, row, prefix) for row in new_rows if row.is_literal for prefix in prefixes]
    return [copy for copy in copies if copy is not None]


def _unrelated_rows(view: View, new: Sequence[FitItem]) -> list[Row]:
    """One trained locality probe per edit that has one, with its answer, or else with the answer of the unedited model.

    EOS is left out: serving never gives it back to the model, and so intervenes nowhere on it.
    """
    rows = []
    for item in new:
        probe = next((probe for probe in item.edit.locality if probe.train), None)
        if probe is not None and probe.answer:
            rows.append(encode_row(view.base, probe.prompt, probe.answer, eos=False))
        elif probe is not None:
            rows.append(served_row(view, encode_prompt(view.base, probe.prompt)))
    return rows
