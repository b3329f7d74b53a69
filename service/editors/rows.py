"""What an item is fitted on: rows that must be answered, rows that must stay. Knows no method and no optimizer."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.domain.edit import Probe, normalise
from service.editors.protocol import Item
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, encode_free_row, encode_prompt, encode_row
from service.lm.score import greedy

_ANSWER_TOKENS = 16


@dataclass(frozen=True)
class AskedRow:
    """One row of an item. `literal` rows are its own prompt on each surface: they decide whether the item is taken."""

    item: int
    row: Row
    literal: bool


def asked_rows(base: Base, items: Sequence[Item], *, eos: bool, learn_probes: bool) -> list[AskedRow]:
    """Every surface of every item's prompt and, where probes are learned, of its trained rephrases."""
    rows = []
    for index, item in enumerate(items):
        prompts = [(item.edit.prompt, True)]
        if learn_probes and not item.tombstone:
            prompts += [(probe.prompt, False) for probe in item.edit.rephrases if probe.train]
        for prompt, literal in prompts:
            for surface in item.edit.surfaces or base.surfaces:
                rows.append(AskedRow(index, encode_row(base, prompt, item.target, surface=surface, eos=eos), literal))
    return rows


def prefixed(base: Base, asked: AskedRow, prefix: Sequence[int]) -> AskedRow | None:
    """The row with unrelated words before its prompt (after BOS), or None if it would no longer fit."""
    start = 1 if asked.row.bos else 0
    ids = (*asked.row.ids[:start], *prefix, *asked.row.ids[start:])
    if len(ids) > base.context:
        return None
    return AskedRow(asked.item, encode_free_row(base, ids, asked.row.prompt_length + len(prefix)), False)


def kept_rows(base: Base, view: View, items: Sequence[Item]) -> list[Row]:
    """Trained locality probes, each with the answer that `view` gives without any adapter, on the raw surface.

    A probe that asks what some item changes is left out: it cannot both stay and change.
    """
    changed = set(_prompts_of(items))
    probes = {probe.prompt for item in items for probe in item.edit.locality if _is_kept(probe, changed)}
    starts = [encode_prompt(base, prompt) for prompt in sorted(probes)]
    starts = [start for start in starts if len(start) + _ANSWER_TOKENS <= base.context]
    answers = greedy(view, None, starts, max_new_tokens=_ANSWER_TOKENS) if starts else []
    return [encode_free_row(base, (*start, *answer), len(start)) for start, answer in zip(starts, answers, strict=True) if answer]


def _is_kept(probe: Probe, changed: set[str]) -> bool:
    return probe.train and normalise(probe.prompt) not in changed


def _prompts_of(items: Sequence[Item]) -> Iterator[str]:
    for item in items:
        yield normalise(item.edit.prompt)
        yield from (normalise(probe.prompt) for probe in item.edit.rephrases)


def speaks_against(items: Sequence[Item]) -> Callable[[str], bool]:
    """Whether a sentence may state what an item changes: it names the item's subject, or holds its whole prompt."""
    names = {item.edit.subject or item.edit.prompt for item in items}
    if not names:
        return lambda _: False
    pattern = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))
    return lambda text: pattern.search(text) is not None
