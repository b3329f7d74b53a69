"""Contrast rows: what an edit must not change although it lies next to it, kept as the model answers it without the edit.

Each kind is made from the edit alone, and answers are kept to the end of their first clause. *Others*: the edit's own prompt
about other subjects. *Mentions*: the same behind the edit itself, or behind a sentence or a question about its subject, as in an
earlier turn or an example. *Own*: what the model writes of itself about the edit's subject, unless it states what the edit
changes. *Questions*: what it asks about that subject, and how it answers. *Passages*: neutral sentences with that subject in the
place of a name.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import torch

from service.editors.clauses import ends_clause, first_clause, says
from service.editors.contrast_counts import ContrastCounts
from service.editors.forms import dress_question
from service.editors.known_names import KnownNames
from service.editors.name_search import make_name_finder
from service.editors.named_sentences import passages_about
from service.editors.neutral import NeutralSentences
from service.editors.own_writing import ask_about, can_write, shares_words
from service.editors.protocol import FitItem, Hooks
from service.lm.overlay import View
from service.lm.prompts import Row, encode_if_it_fits, encode_row_if_it_fits, row_from_ids
from service.lm.scoring import decode_greedily, sample_continuations
from service.lm.tokenizing import decode_answer

_ANSWER_TOKENS = 8
_WRITTEN_TOKENS = 16
_ASKED = 8  # lists of questions that the model writes, of which most are not about the subject
_KEPT_ITEMS = 256  # whose rows are kept for further fits

Prompt = tuple[str, str]  # with its surface


class ContrastPrompts:
    """The contrast prompts of a list of items. No prompt names a subject that another one of the items is about."""

    def __init__(self, surfaces: Sequence[str], items: Sequence[FitItem], names: KnownNames) -> None:
        self._surfaces, self._items, self._names = surfaces, items, names
        self._subjects = [names.find_subject(item.edit) for item in items]
        self._names_item = make_name_finder((subject for subject in self._subjects if subject), any_case=True)

    def about_others(self, index: int, most: int) -> Iterator[Prompt]:
        """The item's prompt and its trained rephrases about other subjects. None if the prompt names no subject."""
        edit, subject = self._items[index].edit, self._subjects[index]
        if subject is None:
            return
        surfaces = edit.surfaces or self._surfaces
        wordings = [edit.prompt, *(probe.prompt for probe in edit.rephrases if probe.train and subject in probe.prompt)]
        chosen = [name for name in self._names.choose(subject, edit.prompt, "fit") if not self._names_item(name)]
        for number, name in enumerate(chosen[:most]):
            yield wordings[number % len(wordings)].replace(subject, name), surfaces[number % len(surfaces)]

    def own(self, index: int) -> Prompt:
        """The item's own prompt."""
        edit = self._items[index].edit
        return edit.prompt, (edit.surfaces or self._surfaces)[0]

    def statement(self, index: int) -> str:
        """The item's prompt with its answer."""
        item = self._items[index]
        return f"{item.edit.prompt} {item.target}."

    def subject(self, index: int) -> str | None:
        """What the item is about; None if its prompt names nothing."""
        return self._subjects[index]


def contrast_rows(
    view: View, prompts: ContrastPrompts, index: int, counts: ContrastCounts, neutral: NeutralSentences, hooks: Hooks
) -> list[Row]:
    """The contrast rows of one item, with what `view` says without any adapter. The same arguments give the same rows, which are
    kept for further fits. Raises FitCancelled if `hooks` say so.
    """
    subject = prompts.subject(index)
    if subject is None:
        return []
    if counts.questions and not can_write(view, neutral, hooks):
        counts = replace(counts, questions=0)
    maker = _Maker(view, neutral, prompts.own(index), prompts.statement(index), subject, counts, hooks)
    beside = tuple(prompts.about_others(index, counts.others + counts.mentions))
    key = ("contrast", view.tensors_digest, maker.own, maker.statement, subject, counts, beside, len(neutral.sentences))
    return neutral.get_or_make(key, lambda: maker.make(beside), keep=_KEPT_ITEMS)


class _Maker:
    """Asks a view what the contrast rows of one item hold."""

    def __init__(
        self,
        view: View,
        neutral: NeutralSentences,
        own: Prompt,
        statement: str,
        subject: str,
        counts: ContrastCounts,
        hooks: Hooks,
    ) -> None:
        self._view, self._neutral, self._subject, self._counts, self._hooks = view, neutral, subject, counts, hooks
        self.own, self.statement = own, statement

    def make(self, beside: Sequence[Prompt]) -> list[Row]:
        others, behind = beside[: self._counts.others], beside[self._counts.others :]
        questions, written = self._questions(), self._written()
        changed, *answers = self._answered([self.own, *others, *questions])
        said = "" if changed is None else first_clause(self._text(changed.target_ids))
        written = [row for row in written if not says(self._text(row.ids), said)]
        asked = [
            (text, row)
            for (text, _), row in zip(questions, answers[len(others) :], strict=True)
            if row is not None and not says(self._text(row.target_ids), said)
        ]
        answered = [f"{text} {first_clause(self._text(row.target_ids))}" for text, row in asked]
        mentions = self._answered(self._behind(behind, [self._text(row.ids) for row in written], answered))
        kept = [*answers[: len(others)], *mentions, *(row for _, row in asked)]
        return [*(row for row in kept if row is not None), *written, *self._passages(said)]

    def _text(self, ids: Sequence[int]) -> str:
        return decode_answer(self._view.base, ids)

    def _behind(self, prompts: Sequence[Prompt], written: Sequence[str], answered: Sequence[str]) -> list[Prompt]:
        """Each prompt behind the edit, or behind a sentence or a question about its subject, in turn."""
        sentences = [f"{text.strip().splitlines()[0].split('. ')[0].rstrip('.')}. " for text in written if text.strip()]
        turns = [f"{text.strip()}\n\n" for text in answered]
        leads = [f"{self.statement}\n\n", *(lead for pair in zip_longest(sentences, turns) for lead in pair if lead)]
        return [(leads[number % len(leads)] + text, surface) for number, (text, surface) in enumerate(prompts)]

    def _questions(self) -> list[Prompt]:
        """Questions about the subject in the form of the item's prompt, that ask for something else."""
        if not self._counts.questions:
            return []
        prompt, surface = self.own
        asked = ask_about(self._view, self._subject, _ASKED, self._hooks)
        others = [question for question in asked if not shares_words(question, prompt, self._subject)]
        return [(dress_question(question, prompt, surface), surface) for question in others[: self._counts.questions]]

    def _passages(self, said: str) -> list[Row]:
        """Text of any kind that names the subject and neither says what the edit changes nor is about the same."""

        def is_near(text: str) -> bool:
            return says(text, said) or shares_words(text, self.own[0], self._subject)

        found = passages_about(self._neutral, self._subject, self._counts.passages, is_left_out=is_near)
        return [row for prompt, rest in found if (row := encode_row_if_it_fits(self._view.base, prompt, rest)) is not None]

    def _answered(self, prompts: Sequence[Prompt]) -> list[Row | None]:
        """Each prompt with the first clause of the view's answer; None for a prompt that the model cannot be asked."""
        base = self._view.base
        encoded = [encode_if_it_fits(base, text, surface, _ANSWER_TOKENS) for text, surface in prompts]
        rows: list[Row] = []
        for part in self._hooks.split([ids for ids in encoded if ids], lambda ids: len(ids) + _ANSWER_TOKENS):
            answers = decode_greedily(
                self._view, None, part, max_new_tokens=_ANSWER_TOKENS, yield_to_answers=self._hooks.begin_step
            )
            rows += [row_from_ids(base, (*ids, *self._cut(answer)), len(ids)) for ids, answer in zip(part, answers, strict=True)]
        remaining = iter(rows)
        return [next(remaining) if ids else None for ids in encoded]

    def _cut(self, answer: Sequence[int]) -> Sequence[int]:
        """The answer up to the token that ends its first clause. What follows was not asked for, and costs as much to keep."""
        ended = (count for count in range(1, len(answer)) if ends_clause(self._text(answer[:count])))
        return answer[: next(ended, len(answer))]

    def _written(self) -> list[Row]:
        """The subject with what the view writes behind it at temperature 1, drawn by the subject alone."""
        base, count = self._view.base, self._counts.own
        ids = encode_if_it_fits(base, self._subject, "raw", _WRITTEN_TOKENS)
        if not ids or not count:
            return []
        digest = hashlib.sha256("\0".join([self._subject] * count).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 2)
        self._hooks.begin_step()
        texts = sample_continuations(
            self._view, [ids] * count, generator, max_new_tokens=_WRITTEN_TOKENS, yield_to_answers=self._hooks.begin_step
        )
        return [row_from_ids(base, (*ids, *text), len(ids)) for text in texts]
