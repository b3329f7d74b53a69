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
from service.editors.wording_counts import WordingCounts
from service.editors.wordings import add_wordings
from service.editors.written_questions import written_questions
from service.lm.base import Base
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
    drawn = _draw_items(items, settings, generator)
    rows_to_learn = iterate_item_rows(
        view.base,
        _with_wordings(view, items, drawn, settings, neutral, names, hooks),
        eos=settings.eos,
        learn_probes=settings.learn_probes,
        prefixes=sample_prefixes(view, settings.prefixes, generator),
        surfaces=("raw",) if settings.surfaces == "raw" else (),
        report_omission=omitted.append,
    )
    sentences = _neutral_rows(view, items, settings, neutral, generator)
    answers = _answers(view, items, prompts, settings, generator, hooks)
    rows_to_keep = (row for part in (sentences, answers) for row in part)
    contrast = _contrast_rows(view, items, drawn, settings, neutral, names, hooks)
    questions = _question_rows(view, items, settings, neutral, generator, hooks)
    rows = PackedRows(_give_way_between(rows_to_learn, len(items), hooks), rows_to_keep, contrast, questions)
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
    """Neutral sentences, whole or a stretch of each: the tuned weights change every position."""
    if settings.preserve_weight == 0:
        return []
    drawn = neutral.draw(settings.preserve_pool, generator, mentions_edit=make_mention_test(items))
    return [_stretch(view.base, row, settings.preserve_tokens, generator) for row in drawn]


def _question_rows(
    view: View,
    items: Sequence[FitItem],
    settings: LocftSettings,
    neutral: NeutralSentences,
    generator: torch.Generator,
    hooks: Hooks,
) -> list[Row]:
    """Questions that the base model writes, with its answers, or a stretch of each."""
    if settings.preserve_weight == 0 or settings.preserve_questions == 0:
        return []
    hooks.progress(0.0, "writing questions")
    written = written_questions(view, settings.preserve_questions, neutral, hooks, mentions_edit=make_mention_test(items))
    return [_stretch(view.base, row, settings.preserve_tokens, generator) for row in written]


def _stretch(base: Base, row: Row, count: int, generator: torch.Generator) -> Row:
    """A sentence whose targets are `count` tokens in a row, at a drawn place, or all of them for 0. Nothing is kept behind them.

    Predicting over a large vocabulary is most of what a row costs, and neighbouring tokens tell much the same.
    """
    first = 2 if row.has_bos else 1
    free = len(row.ids) - first - count  # places but one at which the stretch may begin
    if count == 0 or free <= 0:
        return row_from_ids(base, row.ids, first)
    start = first + int(torch.randint(free + 1, (), generator=generator))
    return row_from_ids(base, row.ids[: start + count], start)


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


def _draw_items(items: Sequence[FitItem], settings: LocftSettings, generator: torch.Generator) -> list[int]:
    """The indexes of the items with contrast rows and wordings. Without either, nothing is drawn."""
    if settings.contrast_counts == NO_CONTRAST and not settings.wordings:
        return []
    return sorted(torch.randperm(len(items), generator=generator)[: settings.contrast_edits].tolist())


def _with_wordings(
    view: View,
    items: Sequence[FitItem],
    drawn: Sequence[int],
    settings: LocftSettings,
    neutral: NeutralSentences,
    names: KnownNames,
    hooks: Hooks,
) -> list[FitItem]:
    """The items, the drawn ones with wordings to learn. The tensors at the start know those of consolidated items."""
    chosen = {index for index in drawn if not items[index].is_consolidated}

    def add(item: FitItem) -> FitItem:
        return add_wordings(view, item, WordingCounts(settings.wordings, settings.restated), neutral, names, hooks)

    return [add(item) if index in chosen else item for index, item in enumerate(items)]


def _contrast_rows(
    view: View,
    items: Sequence[FitItem],
    drawn: Sequence[int],
    settings: LocftSettings,
    neutral: NeutralSentences,
    names: KnownNames,
    hooks: Hooks,
) -> Iterator[Row]:
    """The contrast rows of the drawn items."""
    counts = settings.contrast_counts
    if counts == NO_CONTRAST:
        return
    prompts = ContrastPrompts(view.base.surfaces, items, names)
    for index in drawn:
        yield from contrast_rows(view, prompts, index, counts, neutral, hooks)
