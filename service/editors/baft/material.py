"""Everything one fit learns from, as rows with their forward passes. Knows no optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from service.editors.baft.passes import CachedPasses, Passes, PlainPasses
from service.editors.baft.preserve import Pool, Preserved, pool_of
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import Neutral
from service.editors.protocol import Item
from service.editors.rows import AskedRow, asked_rows, kept_rows, prefixed, speaks_against
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row, prompt_row


@dataclass(frozen=True, eq=False)
class Material:
    """`asked[:fresh]` are rows of new items, the rest rows of the window; `asked_passes` runs them by index.

    Of `pool` the `allowed` rows, the `near` ones more often, and all `kept` (trained locality probes) are preserved; `unrelated`
    feeds the margin term.
    """

    asked: Sequence[AskedRow]
    fresh: int
    asked_passes: Passes
    pool: Pool | None
    allowed: Sequence[int]
    near: Sequence[int]
    kept: Preserved | None
    kept_count: int
    unrelated: Passes | None
    unrelated_count: int


def gather(
    view: View,
    new: Sequence[Item],
    window: Sequence[Item],
    *,
    blocks: Sequence[int],
    settings: BaftSettings,
    neutral: Neutral,
    generator: torch.Generator,
    cached: bool,
) -> Material:
    """Encode everything and run what stays the same in every step once."""

    def passes(on: View, rows: Sequence[Row]) -> Passes:
        if cached:
            return CachedPasses(on, rows, at=min(blocks), last=settings.last)
        return PlainPasses(on, rows, at=min(blocks), last=settings.last)

    base = view.base
    items = [*new, *window]
    own = asked_rows(base, items, eos=settings.eos, learn_probes=settings.learn_probes)
    fresh = [asked for asked in own if asked.item < len(new)]
    fresh += _with_prefixes(base, fresh, settings.prefixes, neutral, generator)
    asked = fresh + ([row for row in own if row.item >= len(new)] if settings.replay else [])
    asked_passes = passes(view, [row.row for row in asked])
    pool = pool_of(view, neutral, blocks, settings, passes) if settings.preserve_weight > 0 else None
    allowed = pool.allowed(speaks_against(items)) if pool else []
    probes = kept_rows(base, view, items) if pool and settings.learn_probes else []
    unrelated = _unrelated_rows(base, new) if settings.margin else []
    return Material(
        asked=asked,
        fresh=len(fresh),
        asked_passes=asked_passes,
        pool=pool,
        allowed=allowed,
        near=pool.near(asked_passes.places()[: len(fresh)], allowed, settings.preserve_near) if pool else [],
        kept=Preserved(view, probes, passes(view, probes)) if probes else None,
        kept_count=len(probes),
        unrelated=passes(view, unrelated) if unrelated else None,
        unrelated_count=len(unrelated),
    )


def _with_prefixes(
    base: Base, fresh: Sequence[AskedRow], count: int, neutral: Neutral, generator: torch.Generator
) -> list[AskedRow]:
    """Copies of the literal rows behind beginnings of sentences that the base model wrote."""
    beginnings = neutral.prefixes(count, generator) if count else []
    copies = [prefixed(base, asked, beginning) for asked in fresh if asked.literal for beginning in beginnings]
    return [copy for copy in copies if copy is not None]


def _unrelated_rows(base: Base, new: Sequence[Item]) -> list[Row]:
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
