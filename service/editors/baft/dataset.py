"""Everything one fit learns from, as rows with their forward passes. Knows no optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from service.editors.baft.execution import Runs
from service.editors.baft.forward_passes import Passes
from service.editors.baft.preserve_term import Pool, Preserved, nearest, pool_of
from service.editors.baft.settings import BaftSettings
from service.editors.examples import AskedRow, asked_rows, kept_rows, prefixed, speaks_against
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem
from service.lm.base import Base
from service.lm.prompts import Row, encode_prompt, encode_row, prompt_row

_NEAR_CONSOLIDATED = 16  # consolidated rows that count as near a new row


@dataclass(frozen=True, eq=False)
class BaftDataset:
    """`asked[:fresh]` are rows of new items, `asked[fresh:replayed]` rows of the window, the rest rows of consolidated items;
    `asked_passes` runs them by index. `near_consolidated` are those of the rest that stand near new rows.

    Of `pool` the `allowed` rows, the `near` ones more often, and all `kept` (trained locality probes) are preserved; `unrelated`
    feeds the margin term.
    """

    asked: Sequence[AskedRow]
    fresh: int
    replayed: int
    asked_passes: Passes
    near_consolidated: Sequence[int]
    pool: Pool | None
    allowed: Sequence[int]
    near: Sequence[int]
    kept: Preserved | None
    kept_count: int
    unrelated: Passes | None
    unrelated_count: int


def gather(
    runs: Runs,
    items: Sequence[FitItem],
    new: int,
    *,
    settings: BaftSettings,
    neutral: NeutralSentences,
    generator: torch.Generator,
) -> BaftDataset:
    """Encode everything and run what stays the same in every step once. `items[:new]` are learned, the others kept."""
    base = runs.view.base
    own = asked_rows(base, items, eos=settings.eos, learn_probes=settings.learn_probes)
    fresh = [row for row in own if row.item < new]
    fresh += _with_prefixes(base, fresh, settings.prefixes, neutral, generator)
    window = [row for row in own if row.item >= new and not items[row.item].is_consolidated]
    consolidated = _some([row for row in own if row.literal and items[row.item].is_consolidated], settings.consolidated_pool)
    asked_passes = runs.passes_with([row.row for row in (*fresh, *window)], [row.row for row in consolidated], neutral)
    places = asked_passes.places()
    in_fit = [item for item in items if not item.is_consolidated]
    pool = pool_of(runs, neutral, settings) if settings.preserve_weight > 0 else None
    allowed = pool.allowed(speaks_against(in_fit)) if pool else []
    probes = kept_rows(base, runs.view, items) if pool and settings.learn_probes else []
    unrelated = _unrelated_rows(base, items[:new]) if settings.margin else []
    first = len(fresh) + len(window)
    return BaftDataset(
        asked=[*fresh, *window, *consolidated],
        fresh=len(fresh),
        replayed=first,
        asked_passes=asked_passes,
        near_consolidated=[first + index for index in nearest(places[first:], places[: len(fresh)], _NEAR_CONSOLIDATED)],
        pool=pool,
        allowed=allowed,
        near=pool.near(places[: len(fresh)], allowed, settings.preserve_near) if pool else [],
        kept=Preserved(runs, probes, runs.passes(probes)) if probes else None,
        kept_count=len(probes),
        unrelated=runs.passes(unrelated) if unrelated else None,
        unrelated_count=len(unrelated),
    )


def _some(rows: Sequence[AskedRow], count: int) -> list[AskedRow]:
    """All rows, or as many as may be kept prepared: always the same ones of the same rows."""
    if len(rows) <= count:
        return list(rows)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return [rows[place] for place in sorted(order)]


def _with_prefixes(
    base: Base, fresh: Sequence[AskedRow], count: int, neutral: NeutralSentences, generator: torch.Generator
) -> list[AskedRow]:
    """Copies of the literal rows behind beginnings of sentences that the base model wrote."""
    beginnings = neutral.prefixes(count, generator) if count else []
    copies = [prefixed(base, asked, beginning) for asked in fresh if asked.literal for beginning in beginnings]
    return [copy for copy in copies if copy is not None]


def _unrelated_rows(base: Base, new: Sequence[FitItem]) -> list[Row]:
    """One trained locality probe per edit that has one: question and answer as one prompt, as the margin term reads it."""
    rows = []
    for item in new:
        probe = next((probe for probe in item.edit.locality if probe.train), None)
        if probe is not None:
            ids = (
                encode_row(base, probe.prompt, probe.answer, eos=False).ids if probe.answer else encode_prompt(base, probe.prompt)
            )
            rows.append(prompt_row(base, ids))
    return rows
