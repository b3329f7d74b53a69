"""Contrast rows: what an edit must not change although it lies next to it, kept as the model answers it without the edit.

Each kind is made from the edit alone. *Others*: the edit's own prompt about other subjects. *Mentions*: the same behind the edit
itself, as where an example names its subject. *Own*: what the model writes of itself about the edit's subject.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch

from service.domain.errors import Refused
from service.editors.contrast_counts import ContrastCounts
from service.editors.known_names import KnownNames
from service.editors.name_search import make_name_finder
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, row_from_ids
from service.lm.scoring import decode_greedily, sample_continuations

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
    return neutral.get_or_make(
        ("contrast", view.tensors_digest, tuple(beside), tuple(starts)),
        lambda: [*_answered(view, beside, hooks), *_written(view, starts, hooks)],
        keep=_KEPT_ITEMS,
    )


def _answered(view: View, prompts: Sequence[tuple[str, str]], hooks: Hooks) -> list[Row]:
    """Each prompt with the beginning of the view's answer."""
    encoded = [ids for text, surface in prompts if (ids := _encode(view, text, surface, _ANSWER_TOKENS))]
    rows: list[Row] = []
    for part in hooks.split(encoded, lambda ids: len(ids) + _ANSWER_TOKENS):
        answers = decode_greedily(view, None, part, max_new_tokens=_ANSWER_TOKENS, yield_to_answers=hooks.begin_step)
        rows += [row_from_ids(view.base, (*ids, *answer), len(ids)) for ids, answer in zip(part, answers, strict=True)]
    return rows


def _written(view: View, starts: Sequence[str], hooks: Hooks) -> list[Row]:
    """Each start with what the view writes behind it at temperature 1, drawn by the starts alone."""
    encoded = [ids for start in starts if (ids := _encode(view, start, "raw", _WRITTEN_TOKENS))]
    digest = hashlib.sha256("\0".join(starts).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 2)
    rows: list[Row] = []
    for part in hooks.split(encoded, lambda ids: len(ids) + _WRITTEN_TOKENS):
        texts = sample_continuations(view, part, generator, max_new_tokens=_WRITTEN_TOKENS, yield_to_answers=hooks.begin_step)
        rows += [row_from_ids(view.base, (*ids, *text), len(ids)) for ids, text in zip(part, texts, strict=True)]
    return rows


def _encode(view: View, text: str, surface: str, more: int) -> tuple[int, ...]:
    """The ids of a prompt; none if the model cannot hold it and `more` tokens."""
    with suppress(Refused):
        ids = encode_prompt(view.base, text, surface=surface)
        if len(ids) + more <= view.base.context_length:
            return ids
    return ()
