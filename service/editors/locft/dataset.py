"""The rows of one retrain, to learn and to keep, packed. Knows no training.

Encoding many edits takes a while, and decoding the base model's answers takes longer: both give way as training steps do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from service.editors.contrast import ContrastPrompts, contrast_rows
from service.editors.contrast_counts import NO_CONTRAST
from service.editors.examples import ItemRow, iterate_item_rows, locality_rows, make_mention_test, real_prompt_rows
from service.editors.known_names import KnownNames
from service.editors.locft.packed_rows import PackedRows
from service.editors.locft.random_prefixes import sample_prefixes
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.lm.overlay import View
from service.lm.prompts import Row, row_from_ids

_ROWS = 64  # encoded between two calls of the hooks
_ENCODED = 0.5  # the share of progress when all rows to learn are encoded


@dataclass(frozen=True, eq=False)
class LocftDataset:
    """The rows of a retrain, the number of neutral sentences among them, and the number of omitted rephrases."""

    rows: PackedRows
    neutral_count: int
    omitted_rephrases: int


def build_dataset(
    view: View,
    items: Sequence[FitItem],
    prompts: Sequence[str],
    *,
    settings: LocftSettings,
    neutral: NeutralSentences,
    names: KnownNames,
    generator: torch.Generator,
    hooks: Hooks,
) -> LocftDataset:
    """Encode every item, and decode the answers to keep under `view`, one of the base. Raises FitCancelled if `hooks` say so."""
    omitted: list[str] = []
    rows_to_learn = iterate_item_rows(
        view.base,
        items,
        eos=settings.eos,
        learn_probes=settings.learn_probes,
        prefixes=sample_prefixes(view, settings.prefixes, generator),
        surfaces=("raw",) if settings.surfaces == "raw" else (),
        report_omission=omitted.append,
    )
    sentences = _neutral_rows(view, items, settings, neutral, generator)
    answers = _answers(view, items, prompts, settings, generator, hooks)
    rows_to_keep = (row for part in (sentences, answers) for row in part)
    contrast = _contrast_rows(view, items, settings, neutral, names, generator, hooks)
    rows = PackedRows(_give_way_between(rows_to_learn, len(items), hooks), rows_to_keep, contrast)
    return LocftDataset(rows, len(sentences), len(omitted))


def _give_way_between(rows: Iterable[ItemRow], items: int, hooks: Hooks) -> Iterator[ItemRow]:
    for number, row in enumerate(rows):
        if number % _ROWS == 0:
            hooks.begin_step()
            hooks.progress(_ENCODED * row.item / items, "reading")
        yield row


def _neutral_rows(
    view: View, items: Sequence[FitItem], settings: LocftSettings, neutral: NeutralSentences, generator: torch.Generator
) -> list[Row]:
    """Whole neutral sentences: the tuned weights change every position."""
    if settings.preserve_weight == 0:
        return []
    drawn = neutral.draw(settings.preserve_pool, generator, mentions_edit=make_mention_test(items))
    return [row_from_ids(view.base, row.ids, 2 if row.has_bos else 1) for row in drawn]


def _answers(
    view: View,
    items: Sequence[FitItem],
    prompts: Sequence[str],
    settings: LocftSettings,
    generator: torch.Generator,
    hooks: Hooks,
) -> Iterator[Row]:
    """Trained locality probes and real prompts, each with the base model's answer."""
    if settings.preserve_weight == 0:
        return
    hooks.progress(_ENCODED, "asking the base model what must stay")
    if settings.learn_probes:
        yield from locality_rows(view.base, view, items, limit=settings.preserve_probes, generator=generator, hooks=hooks)
    yield from real_prompt_rows(view.base, view, items, prompts, limit=settings.preserve_prompts, hooks=hooks)


def _contrast_rows(
    view: View,
    items: Sequence[FitItem],
    settings: LocftSettings,
    neutral: NeutralSentences,
    names: KnownNames,
    generator: torch.Generator,
    hooks: Hooks,
) -> Iterator[Row]:
    """The contrast rows of all items, or of `contrast_edits` of them."""
    counts = settings.contrast_counts
    if counts == NO_CONTRAST:
        return
    prompts = ContrastPrompts(view.base.surfaces, items, names)
    drawn = torch.randperm(len(items), generator=generator)[: settings.contrast_edits].tolist()
    for index in sorted(drawn):
        yield from contrast_rows(view, prompts, index, counts, neutral, hooks)
