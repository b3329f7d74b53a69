"""The training rows of items: rows that must be answered, rows that must stay. Knows no method and no optimizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import torch

from service.domain.edit import Probe, normalise
from service.domain.errors import Refused
from service.editors.name_search import is_distinctive, make_name_finder
from service.editors.protocol import FitItem, Hooks
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row, row_from_ids
from service.lm.scoring import decode_greedily

_ANSWER_TOKENS = 16
_NO_HOOKS = Hooks()


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class ItemRow:
    """One row of an item. `is_literal` rows are the item's own prompt on each surface: they decide if the item is answered."""

    item: int
    row: Row
    is_literal: bool


def item_rows(base: Base, items: Sequence[FitItem], *, eos: bool, learn_probes: bool) -> list[ItemRow]:
    """Every surface of every item's prompt and, with `learn_probes`, of its trained rephrases."""
    return list(iterate_item_rows(base, items, eos=eos, learn_probes=learn_probes))


def iterate_item_rows(
    base: Base,
    items: Sequence[FitItem],
    *,
    eos: bool,
    learn_probes: bool,
    prefixes: Sequence[str] = (),
    surfaces: Sequence[str] = (),
    report_omission: Callable[[str], None] = _ignore,
) -> Iterator[ItemRow]:
    """The same rows one by one, and the prompt of every item after each of `prefixes`. `surfaces` override those of an edit.

    Rows that the model cannot hold are omitted, except an item's own prompt. A rephrase that another row contradicts is omitted:
    no weights give both answers. `report_omission` is called with each omitted rephrase.
    """
    contradicted = _contradicted_prompts(items) if learn_probes else frozenset()
    for index, item in enumerate(items):
        item_surfaces = surfaces or item.edit.surfaces or base.surfaces
        for surface in item_surfaces:
            yield ItemRow(index, encode_row(base, item.edit.prompt, item.target, surface=surface, eos=eos), True)
        for probe in _trained_rephrases(item) if learn_probes else ():
            rows = (
                _rows_that_fit(base, probe.prompt, _answer(probe, item), item_surfaces, eos)
                if normalise(probe.prompt) not in contradicted
                else []
            )
            if len(rows) < len(item_surfaces):
                report_omission(probe.prompt)
            yield from (ItemRow(index, row, False) for row in rows)
        for prefix in () if item.is_tombstone else prefixes:
            rows = _rows_that_fit(base, prefix + item.edit.prompt, item.target, item_surfaces, eos)
            yield from (ItemRow(index, row, False) for row in rows)


def _rows_that_fit(base: Base, prompt: str, answer: str, surfaces: Sequence[str], eos: bool) -> list[Row]:
    rows = []
    for surface in surfaces:
        with suppress(Refused):
            rows.append(encode_row(base, prompt, answer, surface=surface, eos=eos))
    return rows


def _trained_rephrases(item: FitItem) -> Iterator[Probe]:
    """The rephrases to learn. A tombstone has none: its rephrases state the retracted answer."""
    return (probe for probe in item.edit.rephrases if probe.train and not item.is_tombstone)


def _answer(probe: Probe, item: FitItem) -> str:
    return probe.answer or item.target


def _contradicted_prompts(items: Sequence[FitItem]) -> frozenset[str]:
    """Rephrases that would be learned with several answers: as rephrases of several items, or as an item's own prompt."""
    answers_by_prompt: dict[str, set[str]] = {}
    for item in items:
        for probe in _trained_rephrases(item):
            answers_by_prompt.setdefault(normalise(probe.prompt), set()).add(normalise(_answer(probe, item)))
    for item in items if answers_by_prompt else ():
        if (answers := answers_by_prompt.get(normalise(item.edit.prompt))) is not None:
            answers.add(normalise(item.target))
    return frozenset(prompt for prompt, answers in answers_by_prompt.items() if len(answers) > 1)


def add_prefix(base: Base, item_row: ItemRow, prefix: Sequence[int]) -> ItemRow | None:
    """The row with unrelated tokens before its prompt (after BOS), or None if the longer row does not fit the context."""
    start = 1 if item_row.row.has_bos else 0
    ids = (*item_row.row.ids[:start], *prefix, *item_row.row.ids[start:])
    if len(ids) > base.context_length:
        return None
    return ItemRow(item_row.item, row_from_ids(base, ids, item_row.row.prompt_length + len(prefix)), False)


def locality_rows(
    base: Base,
    view: View,
    items: Sequence[FitItem],
    *,
    limit: int | None = None,
    generator: torch.Generator | None = None,
    hooks: Hooks = _NO_HOOKS,
) -> list[Row]:
    """Trained locality probes, each with the answer that `view` gives without any adapter, on the raw surface.

    A probe whose answer some item changes is omitted: the answer cannot both stay and change. Of more than `limit` probes,
    `limit` are drawn.
    """
    changed = set(_changed_prompts(items))
    probes = sorted({probe.prompt for item in items for probe in item.edit.locality if _must_stay(probe, changed)})
    if limit is not None and len(probes) > limit:
        probes = [probes[index] for index in torch.randperm(len(probes), generator=generator)[:limit].tolist()]
    return _rows_with_answers(base, view, probes, hooks)


def real_prompt_rows(
    base: Base,
    view: View,
    items: Sequence[FitItem],
    prompts: Sequence[str],
    *,
    limit: int,
    hooks: Hooks = _NO_HOOKS,
) -> list[Row]:
    """The first `limit` of real prompts, each with the answer that `view` gives without any adapter, on the raw surface.

    Prompts whose answer an item may change are omitted: prompts that name its subject, in any case, and its prompt and rephrases.
    """
    changed, mentions_item = set(_changed_prompts(items)), make_mention_test(items, any_case=True)
    unchanged = (prompt for prompt in dict.fromkeys(prompts) if normalise(prompt) not in changed and not mentions_item(prompt))
    return _rows_with_answers(base, view, islice(unchanged, limit), hooks)


def served_row(view: View, prompt_ids: Sequence[int]) -> Row:
    """A prompt with the answer that `view` gives without any adapter, as far as serving gives it back to the model: without EOS.

    The row of a blank answer is the prompt alone.
    """
    (answer,) = decode_greedily(view, None, [prompt_ids], max_new_tokens=_ANSWER_TOKENS)
    end = len(answer) - (answer[-1] in view.base.eos_ids)
    return row_from_ids(view.base, (*prompt_ids, *answer[:end]), len(prompt_ids))


def _rows_with_answers(base: Base, view: View, prompts: Iterable[str], hooks: Hooks) -> list[Row]:
    """The prompts that the base model can read, in alphabetical order, each with the view's answer. Blank answers give no row."""
    encoded = []
    for prompt in sorted(prompts):
        with suppress(Refused):
            encoded.append(encode_prompt(base, prompt))
    encoded = [ids for ids in encoded if len(ids) + _ANSWER_TOKENS <= base.context_length]
    rows: list[Row] = []
    for part in hooks.split(encoded, lambda ids: len(ids) + _ANSWER_TOKENS):
        answers = decode_greedily(view, None, part, max_new_tokens=_ANSWER_TOKENS)
        rows += [row_from_ids(base, (*ids, *answer), len(ids)) for ids, answer in zip(part, answers, strict=True) if answer]
    return rows


def _must_stay(probe: Probe, changed: set[str]) -> bool:
    return probe.train and normalise(probe.prompt) not in changed


def _changed_prompts(items: Sequence[FitItem]) -> Iterator[str]:
    for item in items:
        yield normalise(item.edit.prompt)
        yield from (normalise(probe.prompt) for probe in item.edit.rephrases)


def make_mention_test(items: Sequence[FitItem], *, any_case: bool = False) -> Callable[[str], bool]:
    """A predicate: whether a sentence may state an item's fact, because it names the item's subject or holds its whole prompt.

    A subject or prompt that is too short to be distinctive is ignored: it would match almost every sentence.
    """
    names_by_item = ((item.edit.subject, item.edit.prompt) for item in items)
    distinctive = (
        next((name for name in names if name and is_distinctive(name, any_case=any_case)), None) for names in names_by_item
    )
    return make_name_finder((name for name in distinctive if name), any_case=any_case)
