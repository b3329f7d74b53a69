"""What one retrain learns from and what must stay, read into one store of rows. Knows no training.

Reading many edits takes a while, and having the base model say what must stay takes longer: both give way as the steps do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from service.editors.examples import AskedRow, each_asked_row, kept_prompts, kept_rows, speaks_against
from service.editors.locft.packed_rows import RowStore
from service.editors.locft.random_prefixes import sample_beginnings
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.lm.overlay import View
from service.lm.prompts import Row, row_from_ids

_ROWS = 64  # encoded between two looks at the hooks
_ENCODED = 0.5  # of the progress, once all rows to learn are encoded


@dataclass(frozen=True, eq=False)
class LocftDataset:
    """The rows of a retrain, how many neutral sentences are among them, and how many trained rephrases are not."""

    rows: RowStore
    neutral: int
    left_out: int


def read(
    on: View,
    items: Sequence[FitItem],
    prompts: Sequence[str],
    *,
    settings: LocftSettings,
    neutral: NeutralSentences,
    generator: torch.Generator,
    hooks: Hooks,
) -> LocftDataset:
    """Encodes every item, and has `on`, a view of the base, say what must stay. Raises FitCancelled if `hooks` say so."""
    left_out: list[str] = []
    asked = each_asked_row(
        on.base,
        items,
        eos=settings.eos,
        learn_probes=settings.learn_probes,
        beginnings=sample_beginnings(on, settings.prefixes, generator),
        surfaces=("raw",) if settings.surfaces == "raw" else (),
        left_out=left_out.append,
    )
    sentences = _neutral_rows(on, items, settings, neutral, generator)
    answers = _answers(on, items, prompts, settings, generator, hooks)
    rows = RowStore(_giving_way(asked, len(items), hooks), (row for part in (sentences, answers) for row in part))
    return LocftDataset(rows, len(sentences), len(left_out))


def _giving_way(asked: Iterable[AskedRow], items: int, hooks: Hooks) -> Iterator[AskedRow]:
    for number, each in enumerate(asked):
        if number % _ROWS == 0:
            hooks.begin_step()
            hooks.progress(_ENCODED * each.item / items, "reading")
        yield each


def _neutral_rows(
    on: View, items: Sequence[FitItem], settings: LocftSettings, neutral: NeutralSentences, generator: torch.Generator
) -> list[Row]:
    """Neutral sentences whole, as the tuned weights compute every position of them."""
    if settings.preserve_weight == 0:
        return []
    drawn = neutral.draw(settings.preserve_pool, generator, speaks_against=speaks_against(items))
    return [row_from_ids(on.base, row.ids, 2 if row.has_bos else 1) for row in drawn]


def _answers(
    on: View, items: Sequence[FitItem], prompts: Sequence[str], settings: LocftSettings, generator: torch.Generator, hooks: Hooks
) -> Iterator[Row]:
    """Trained locality probes and real prompts, each with the base model's answer."""
    if settings.preserve_weight == 0:
        return
    hooks.progress(_ENCODED, "asking the base model what must stay")
    if settings.learn_probes:
        yield from kept_rows(on.base, on, items, limit=settings.preserve_probes, generator=generator, hooks=hooks)
    yield from kept_prompts(on.base, on, items, prompts, limit=settings.preserve_prompts, hooks=hooks)
