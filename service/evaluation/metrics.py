"""How a version answers questions, beside how the base model answers them.

Two judgements, always told apart (teacher forcing flatters: a method can score 0.5 by tokens and never give one right answer):

- *greedy*: the greedy answer up to EOS is exactly the expected one; for locality, exactly the base model's own whole answer.
- *tokens*: the share of expected tokens that are the first choice after the expected tokens before them; for locality, the share
  of positions of the expected answer at which version and base model choose alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from service.evaluation.record import Ask
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View, target_logits
from service.lm.prompts import Row, collate, encode_free_row, encode_prompt, encode_row
from service.lm.sampling import likeliest
from service.lm.score import greedy

LONGEST_ANSWER = 32  # tokens of a base model's answer that are compared
ROWS_AT_ONCE = 64
REMEMBERED = 20_000  # answers of the base model, some megabytes; a server asks for as long as it lives
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """How one question went; `base_*` is what the base model scores on it (1 for locality, which is measured against it)."""

    ask: Ask
    greedy: bool
    tokens: float
    base_greedy: bool
    base_tokens: float


class Reference:
    """The unedited model's answers and choices, computed once as long as they are remembered: many versions get one question."""

    def __init__(self, view: View, *, longest_answer: int = LONGEST_ANSWER) -> None:
        self.view = view
        self._longest = longest_answer
        self._answers: dict[Ids, Ids] = {}
        self._choices: dict[Row, Ids] = {}

    @property
    def base(self) -> Base:
        return self.view.base

    @property
    def longest_answer(self) -> int:
        """How many tokens of an answer are remembered."""
        return self._longest

    def answers(self, prompts: Sequence[Ids]) -> list[Ids]:
        """The whole greedy answer to each prompt, EOS included where it came before the limit."""
        new = sorted({prompt for prompt in prompts if prompt not in self._answers}, key=len)
        for start in range(0, len(new), ROWS_AT_ONCE):
            chunk = new[start : start + ROWS_AT_ONCE]
            self._answers.update(zip(chunk, greedy(self.view, None, chunk, max_new_tokens=self._longest), strict=True))
        found = [self._answers[prompt] for prompt in prompts]
        _forget_oldest(self._answers)
        return found

    def choices(self, rows: Sequence[Row]) -> list[Ids]:
        """The first choice at every target position of each row."""
        new = list({row: None for row in rows if row not in self._choices})
        self._choices.update(zip(new, choices(self.view, None, new), strict=True))
        found = [self._choices[row] for row in rows]
        _forget_oldest(self._choices)
        return found


def measure(view: View, adapter: Adapter | None, reference: Reference, asks: Sequence[Ask]) -> list[Outcome]:
    """The outcome of each question for the version that `view` and `adapter` make, in the order of the questions."""
    whole = [_whole_answer(reference, ask) for ask in asks]  # what the greedy answer must be
    forced = [_expected(reference.base, ask, row) for ask, row in zip(asks, whole, strict=True)]  # what is teacher-forced
    of_whole = _lookup(view, adapter, [*whole, *forced])
    base_choices = reference.choices([*whole, *forced])
    outcomes = []
    for at, ask in enumerate(asks):
        base_whole, base_forced = base_choices[at], base_choices[at + len(asks)]
        local = ask.kind == "locality"
        agreed_with = base_forced if local else forced[at].target_ids
        outcomes.append(
            Outcome(
                ask=ask,
                greedy=of_whole[whole[at]] == whole[at].target_ids,
                tokens=_agreement(of_whole[forced[at]], agreed_with),
                base_greedy=local or base_whole == whole[at].target_ids,
                base_tokens=1.0 if local else _agreement(base_forced, forced[at].target_ids),
            )
        )
    return outcomes


@torch.no_grad()
def choices(view: View, adapter: Adapter | None, rows: Sequence[Row]) -> list[Ids]:
    """The first choice at every target position of each row, rows of like length together.

    All of a row's choices equal its target ids exactly when greedy decoding gives that target.
    """
    by_length = sorted(range(len(rows)), key=lambda at: len(rows[at].ids))
    found: list[Ids] = [()] * len(rows)
    interventions = None if adapter is None else adapter.interventions
    for start in range(0, len(by_length), ROWS_AT_ONCE):
        chunk = by_length[start : start + ROWS_AT_ONCE]
        batch = collate(view.base, [rows[at] for at in chunk], last=3 if adapter is None else adapter.last)
        picked = likeliest(target_logits(view, batch, interventions)).cpu()  # (N,)
        lengths = [len(rows[at].target_ids) for at in chunk]
        for at, ids in zip(chunk, picked.split(lengths), strict=True):
            found[at] = tuple(ids.tolist())
    return found


def _forget_oldest(remembered: dict[Any, Ids]) -> None:
    for oldest in list(remembered)[: max(0, len(remembered) - REMEMBERED)]:
        del remembered[oldest]


def _lookup(view: View, adapter: Adapter | None, rows: Sequence[Row]) -> dict[Row, Ids]:
    distinct = list(dict.fromkeys(rows))
    return dict(zip(distinct, choices(view, adapter, distinct), strict=True))


def _whole_answer(reference: Reference, ask: Ask) -> Row:
    """The row whose target the greedy answer must equal: for locality the base model's own answer, to its end."""
    base = reference.base
    if ask.kind != "locality":
        return _expected(base, ask, None)
    prompt = encode_prompt(base, ask.prompt, surface=ask.surface)
    [answer] = reference.answers([prompt])
    return encode_free_row(base, prompt + answer, len(prompt))


def _expected(base: Base, ask: Ask, own: Row | None) -> Row:
    """The row to be teacher-forced: the named answer with EOS, else the base model's own."""
    if ask.answer is not None:
        return encode_row(base, ask.prompt, ask.answer, surface=ask.surface)
    assert own is not None
    return own


def _agreement(chosen: Ids, expected: Ids) -> float:
    return sum(left == right for left, right in zip(chosen, expected, strict=True)) / len(expected)
