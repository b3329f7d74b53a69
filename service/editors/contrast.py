"""Contrast rows: what an edit must not change although it lies next to it, kept as the model answers it without the edit.

Each kind is made from the edit alone. *Others*: the edit's own prompt about other subjects. *Mentions*: the same behind the edit
itself, as where an example names its subject. *Own*: what the model writes of itself about the edit's subject,
unless it states what the edit changes.
"""

import hashlib
from collections.abc import Iterator, Sequence

import torch

from service.editors.clauses import first_clause, says
from service.editors.contrast_counts import ContrastCounts
from service.editors.known_names import KnownNames
from service.editors.name_search import make_name_finder
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.lm.overlay import View
from service.lm.prompts import Row, encode_if_it_fits, row_from_ids
from service.lm.scoring import decode_greedily, sample_continuations
from service.lm.tokenizing import decode_answer

_ANSWER_TOKENS = 8
_WRITTEN_TOKENS = 16
_KEPT_ITEMS = 256  # whose rows are kept for further fits


class ContrastPrompts:
    """The contrast prompts of a list of items. No prompt names a subject that another one of the items is about."""

    def __init__(self, surfaces: Sequence[str], items: Sequence[FitItem], names: KnownNames) -> None:
        self._surfaces, self._items, self._names = surfaces, items, names
        self._subjects = [names.find_subject(item.edit) for item in items]
        self._names_item = make_name_finder((subject for subject in self._subjects if subject), any_case=True)

    def beside(self, index: int, counts: ContrastCounts) -> Iterator[tuple[str, str]]:
        """(prompt, surface) about other subjects, alone and behind the edit. None for a prompt that names no subject."""
        item, subject = self._items[index], self._subjects[index]
        if subject is None:
            return
        surfaces = item.edit.surfaces or self._surfaces
        wordings = [item.edit.prompt, *(probe.prompt for probe in item.edit.rephrases if probe.train and subject in probe.prompt)]
        chosen = [name for name in self._names.choose(subject, item.edit.prompt, "fit") if not self._names_item(name)]
        for number, name in enumerate(chosen[: counts.others + counts.mentions]):
            text = wordings[number % len(wordings)].replace(subject, name)
            lead = f"{item.edit.prompt} {item.target}.\n\n" if number >= counts.others else ""
            yield lead + text, surfaces[number % len(surfaces)]

    def own(self, index: int) -> tuple[str, str]:
        """(prompt, surface) of the item itself."""
        edit = self._items[index].edit
        return edit.prompt, (edit.surfaces or self._surfaces)[0]

    def starts(self, index: int, counts: ContrastCounts) -> list[str]:
        """The beginnings of sentences about the item's own subject."""
        subject = self._subjects[index]
        return [] if subject is None else [subject] * counts.own


def contrast_rows(
    view: View, prompts: ContrastPrompts, index: int, counts: ContrastCounts, neutral: NeutralSentences, hooks: Hooks
) -> list[Row]:
    """The contrast rows of one item, with what `view` says without any adapter. The same arguments give the same rows, which are
    kept for further fits. Raises FitCancelled if `hooks` say so.
    """
    beside, starts = list(prompts.beside(index, counts)), prompts.starts(index, counts)
    own = prompts.own(index)
    return neutral.get_or_make(
        ("contrast", view.tensors_digest, own, tuple(beside), tuple(starts)),
        lambda: _make_rows(view, own, beside, starts, hooks),
        keep=_KEPT_ITEMS,
    )


def _make_rows(
    view: View, own: tuple[str, str], beside: Sequence[tuple[str, str]], starts: Sequence[str], hooks: Hooks
) -> list[Row]:
    """The answers beside an edit, and the texts about its subject that do not state what the edit changes."""
    if not beside and not starts:
        return []
    changed, *answers = _answered(view, [own, *beside], hooks)
    said = "" if changed is None else first_clause(decode_answer(view.base, changed.target_ids))
    written = [row for row in _written(view, starts, hooks) if not says(decode_answer(view.base, row.ids), said)]
    return [*(row for row in answers if row is not None), *written]


def _answered(view: View, prompts: Sequence[tuple[str, str]], hooks: Hooks) -> list[Row | None]:
    """Each prompt with the beginning of the view's answer; None for a prompt that the model cannot be asked."""
    encoded = [encode_if_it_fits(view.base, text, surface, _ANSWER_TOKENS) for text, surface in prompts]
    rows: list[Row] = []
    for part in hooks.split([ids for ids in encoded if ids], lambda ids: len(ids) + _ANSWER_TOKENS):
        answers = decode_greedily(view, None, part, max_new_tokens=_ANSWER_TOKENS, yield_to_answers=hooks.begin_step)
        rows += [row_from_ids(view.base, (*ids, *answer), len(ids)) for ids, answer in zip(part, answers, strict=True)]
    remaining = iter(rows)
    return [next(remaining) if ids else None for ids in encoded]


def _written(view: View, starts: Sequence[str], hooks: Hooks) -> list[Row]:
    """Each start with what the view writes behind it at temperature 1, drawn by the starts alone."""
    encoded = [ids for start in starts if (ids := encode_if_it_fits(view.base, start, "raw", _WRITTEN_TOKENS))]
    digest = hashlib.sha256("\0".join(starts).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 2)
    rows: list[Row] = []
    for part in hooks.split(encoded, lambda ids: len(ids) + _WRITTEN_TOKENS):
        texts = sample_continuations(view, part, generator, max_new_tokens=_WRITTEN_TOKENS, yield_to_answers=hooks.begin_step)
        rows += [row_from_ids(view.base, (*ids, *text), len(ids)) for ids, text in zip(part, texts, strict=True)]
    return rows
