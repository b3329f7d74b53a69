"""What an item is fitted on: rows that must be answered, rows that must stay. Knows no method and no optimizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from service.domain.edit import Probe, normalise
from service.domain.errors import Refused, TooLong
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
    return list(each_asked_row(base, items, eos=eos, learn_probes=learn_probes))


def each_asked_row(
    base: Base, items: Sequence[Item], *, eos: bool, learn_probes: bool, beginnings: Sequence[str] = ()
) -> Iterator[AskedRow]:
    """The same rows one by one; also the prompt of every item behind each of `beginnings`, where that fits the context."""
    for index, item in enumerate(items):
        for prompt, literal in _prompts_to_learn(item, learn_probes):
            for surface in item.edit.surfaces or base.surfaces:
                yield AskedRow(index, encode_row(base, prompt, item.target, surface=surface, eos=eos), literal)
        for beginning in () if item.tombstone else beginnings:
            for surface in item.edit.surfaces or base.surfaces:
                with suppress(TooLong):
                    row = encode_row(base, beginning + item.edit.prompt, item.target, surface=surface, eos=eos)
                    yield AskedRow(index, row, False)


def _prompts_to_learn(item: Item, learn_probes: bool) -> Iterator[tuple[str, bool]]:
    yield item.edit.prompt, True
    if learn_probes and not item.tombstone:
        yield from ((probe.prompt, False) for probe in item.edit.rephrases if probe.train)


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
    return _with_answers(base, view, {probe.prompt for item in items for probe in item.edit.locality if _is_kept(probe, changed)})


def kept_prompts(base: Base, view: View, items: Sequence[Item], prompts: Sequence[str], *, limit: int) -> list[Row]:
    """The first `limit` of real prompts, each with the answer that `view` gives without any adapter, on the raw surface.

    Left out are those that may ask for what an item changes: they name its subject, in capitals or not, or are a prompt or
    rephrase of it.
    """
    changed, against = set(_prompts_of(items)), speaks_against(items, any_case=True)
    fitting = [prompt for prompt in dict.fromkeys(prompts) if normalise(prompt) not in changed and not against(prompt)]
    return _with_answers(base, view, fitting[:limit])


def _with_answers(base: Base, view: View, prompts: Iterable[str]) -> list[Row]:
    """Prompts that the base model can read, in alphabetical order, with what it says to them. Blank answers are none."""
    starts = []
    for prompt in sorted(prompts):
        with suppress(Refused):
            starts.append(encode_prompt(base, prompt))
    starts = [start for start in starts if len(start) + _ANSWER_TOKENS <= base.context]
    answers = greedy(view, None, starts, max_new_tokens=_ANSWER_TOKENS) if starts else []
    return [encode_free_row(base, (*start, *answer), len(start)) for start, answer in zip(starts, answers, strict=True) if answer]


def _is_kept(probe: Probe, changed: set[str]) -> bool:
    return probe.train and normalise(probe.prompt) not in changed


def _prompts_of(items: Sequence[Item]) -> Iterator[str]:
    for item in items:
        yield normalise(item.edit.prompt)
        yield from (normalise(probe.prompt) for probe in item.edit.rephrases)


def speaks_against(items: Sequence[Item], *, any_case: bool = False) -> Callable[[str], bool]:
    """Whether a sentence may state what an item changes: it names the item's subject, or holds its whole prompt.

    The cost of a sentence is its length times the number of different lengths of names, however many items there are.
    """
    written = str.lower if any_case else str
    names = {written(item.edit.subject or item.edit.prompt) for item in items}
    lengths = sorted({len(name) for name in names})

    def against(sentence: str) -> bool:
        text = written(sentence)
        return any(text[start : start + length] in names for length in lengths for start in range(len(text) - length + 1))

    return against
