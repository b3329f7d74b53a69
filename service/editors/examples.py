"""What an item is fitted on: rows that must be answered, rows that must stay. Knows no method and no optimizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import torch

from service.domain.edit import Probe, normalise
from service.domain.errors import Refused
from service.editors.mentions import is_distinctive, make_name_finder
from service.editors.protocol import FitItem, Hooks
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row, row_from_ids
from service.lm.scoring import decode_greedily

_ANSWER_TOKENS = 16
_NOBODY = Hooks()


def _ignore(*_: object) -> None:
    """Nobody is interested."""


@dataclass(frozen=True)
class AskedRow:
    """One row of an item. `literal` rows are its own prompt on each surface: they decide whether the item is taken."""

    item: int
    row: Row
    literal: bool


def asked_rows(base: Base, items: Sequence[FitItem], *, eos: bool, learn_probes: bool) -> list[AskedRow]:
    """Every surface of every item's prompt and, where probes are learned, of its trained rephrases."""
    return list(each_asked_row(base, items, eos=eos, learn_probes=learn_probes))


def each_asked_row(
    base: Base,
    items: Sequence[FitItem],
    *,
    eos: bool,
    learn_probes: bool,
    beginnings: Sequence[str] = (),
    surfaces: Sequence[str] = (),
    left_out: Callable[[str], None] = _ignore,
) -> Iterator[AskedRow]:
    """The same rows one by one; also the prompt of every item behind each of `beginnings`. With `surfaces` on these, whatever an
    edit names.

    What the model cannot hold is left out unless it is an item's own prompt, and so is a rephrase that another row contradicts:
    no weights answer it both ways. `left_out` is told the rephrases.
    """
    contradicted = _contradicted(items) if learn_probes else frozenset()
    for index, item in enumerate(items):
        on = surfaces or item.edit.surfaces or base.surfaces
        for surface in on:
            yield AskedRow(index, encode_row(base, item.edit.prompt, item.target, surface=surface, eos=eos), True)
        for probe in _trained(item) if learn_probes else ():
            fit = (
                _fitting(base, probe.prompt, _answer(probe, item), on, eos) if normalise(probe.prompt) not in contradicted else []
            )
            if len(fit) < len(on):
                left_out(probe.prompt)
            yield from (AskedRow(index, row, False) for row in fit)
        for beginning in () if item.is_tombstone else beginnings:
            yield from (AskedRow(index, row, False) for row in _fitting(base, beginning + item.edit.prompt, item.target, on, eos))


def _fitting(base: Base, prompt: str, answer: str, surfaces: Sequence[str], eos: bool) -> list[Row]:
    rows = []
    for surface in surfaces:
        with suppress(Refused):
            rows.append(encode_row(base, prompt, answer, surface=surface, eos=eos))
    return rows


def _trained(item: FitItem) -> Iterator[Probe]:
    """The rephrases that are learned: none of a tombstone, since they say the retracted answer."""
    return (probe for probe in item.edit.rephrases if probe.train and not item.is_tombstone)


def _answer(probe: Probe, item: FitItem) -> str:
    return probe.answer or item.target


def _contradicted(items: Sequence[FitItem]) -> frozenset[str]:
    """Rephrases that would be learned with several answers, be it as rephrases of others or as an item's own prompt."""
    answers: dict[str, set[str]] = {}
    for item in items:
        for probe in _trained(item):
            answers.setdefault(normalise(probe.prompt), set()).add(normalise(_answer(probe, item)))
    for item in items if answers else ():
        if (own := answers.get(normalise(item.edit.prompt))) is not None:
            own.add(normalise(item.target))
    return frozenset(text for text, said in answers.items() if len(said) > 1)


def prefixed(base: Base, asked: AskedRow, prefix: Sequence[int]) -> AskedRow | None:
    """The row with unrelated words before its prompt (after BOS), or None if it would no longer fit."""
    start = 1 if asked.row.has_bos else 0
    ids = (*asked.row.ids[:start], *prefix, *asked.row.ids[start:])
    if len(ids) > base.context_length:
        return None
    return AskedRow(asked.item, row_from_ids(base, ids, asked.row.prompt_length + len(prefix)), False)


def kept_rows(
    base: Base,
    view: View,
    items: Sequence[FitItem],
    *,
    limit: int | None = None,
    generator: torch.Generator | None = None,
    hooks: Hooks = _NOBODY,
) -> list[Row]:
    """Trained locality probes, each with the answer that `view` gives without any adapter, on the raw surface.

    A probe that asks what some item changes is left out: it cannot both stay and change. Of more than `limit` as many are drawn.
    """
    changed = set(_prompts_of(items))
    probes = sorted({probe.prompt for item in items for probe in item.edit.locality if _is_kept(probe, changed)})
    if limit is not None and len(probes) > limit:
        probes = [probes[place] for place in torch.randperm(len(probes), generator=generator)[:limit].tolist()]
    return _with_answers(base, view, probes, hooks)


def kept_prompts(
    base: Base,
    view: View,
    items: Sequence[FitItem],
    prompts: Sequence[str],
    *,
    limit: int,
    hooks: Hooks = _NOBODY,
) -> list[Row]:
    """The first `limit` of real prompts, each with the answer that `view` gives without any adapter, on the raw surface.

    Left out are those that may ask for what an item changes: they name its subject, in capitals or not, or are a prompt or
    rephrase of it.
    """
    changed, against = set(_prompts_of(items)), speaks_against(items, any_case=True)
    fitting = (prompt for prompt in dict.fromkeys(prompts) if normalise(prompt) not in changed and not against(prompt))
    return _with_answers(base, view, islice(fitting, limit), hooks)


def _with_answers(base: Base, view: View, prompts: Iterable[str], hooks: Hooks) -> list[Row]:
    """Prompts that the base model can read, in alphabetical order, with what it says to them. Blank answers are none."""
    starts = []
    for prompt in sorted(prompts):
        with suppress(Refused):
            starts.append(encode_prompt(base, prompt))
    starts = [start for start in starts if len(start) + _ANSWER_TOKENS <= base.context_length]
    rows: list[Row] = []
    for asked in hooks.split(starts, lambda start: len(start) + _ANSWER_TOKENS):
        answers = decode_greedily(view, None, asked, max_new_tokens=_ANSWER_TOKENS)
        rows += [row_from_ids(base, (*ids, *said), len(ids)) for ids, said in zip(asked, answers, strict=True) if said]
    return rows


def _is_kept(probe: Probe, changed: set[str]) -> bool:
    return probe.train and normalise(probe.prompt) not in changed


def _prompts_of(items: Sequence[FitItem]) -> Iterator[str]:
    for item in items:
        yield normalise(item.edit.prompt)
        yield from (normalise(probe.prompt) for probe in item.edit.rephrases)


def speaks_against(items: Sequence[FitItem], *, any_case: bool = False) -> Callable[[str], bool]:
    """Whether a sentence may state what an item changes: it names the item's subject, or holds its whole prompt.

    A subject that is too short to tell anything counts as none, and so does such a prompt: hardly a sentence would be left.
    """
    names = ((item.edit.subject, item.edit.prompt) for item in items)
    telling = (next((name for name in given if name and is_distinctive(name, any_case=any_case)), None) for given in names)
    return make_name_finder((name for name in telling if name), any_case=any_case)
