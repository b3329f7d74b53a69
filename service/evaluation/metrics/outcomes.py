"""How a version answers questions, beside how the base model answers them.

Two judgements, always told apart (teacher forcing flatters: a method can score 0.5 by tokens and never give one right answer):

- *greedy*: the greedy answer up to EOS is exactly the expected one; for locality, exactly the base model's own whole answer.
- *tokens*: the share of expected tokens, EOS not counted, that are the first choice after the expected tokens before them; for
  locality, the share of positions of the named answer (without one: the base model's) at which version and base choose alike.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from service.evaluation.metrics.length_batches import passes
from service.evaluation.records import Ask
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits
from service.lm.prompts import LAST_PROMPT_TOKENS, Row, collate, encode_prompt, encode_row, row_from_ids
from service.lm.sampling import greedy_tokens
from service.lm.scoring import decode_greedily

LONGEST_ANSWER = 32  # tokens of a base model's answer that are compared
AT_ONCE = 32  # questions: between two pieces live traffic goes first
REMEMBERED = 20_000  # answers of the base model, some megabytes; a server asks for as long as it lives
Ids = tuple[int, ...]
Between = Callable[[], None]
T = TypeVar("T")


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

    def answers(self, prompts: Sequence[Ids], *, between: Between = lambda: None) -> list[Ids]:
        """The whole greedy answer to each prompt, EOS included where it came before the limit."""
        new = sorted({prompt for prompt in prompts if prompt not in self._answers}, key=len)
        answers = decode_greedily(self.view, None, new, max_new_tokens=self._longest, yield_to_answers=between)
        self._answers.update(zip(new, answers, strict=True))
        found = [self._answers[prompt] for prompt in prompts]
        _forget_oldest(self._answers)
        return found

    def choices(self, rows: Sequence[Row], *, between: Between = lambda: None) -> list[Ids]:
        """The first choice at every target position of each row."""
        new = list({row: None for row in rows if row not in self._choices})
        self._choices.update(zip(new, choices(self.view, None, new, between=between), strict=True))
        found = [self._choices[row] for row in rows]
        _forget_oldest(self._choices)
        return found


def measure(
    view: View, adapter: Adapter | None, reference: Reference, asks: Sequence[Ask], *, between: Between = lambda: None
) -> list[Outcome]:
    """The outcome of each question for the version that `view` and `adapter` make, in the order of the questions."""
    outcomes: list[Outcome] = []
    for some in in_pieces(asks, between):
        outcomes += _measured(view, adapter, reference, some, between)
    return outcomes


def in_pieces(given: Sequence[T], between: Between, at_once: int = AT_ONCE) -> Iterator[Sequence[T]]:
    """What is asked, a few at a time; `between` comes before each."""
    for start in range(0, len(given), at_once):
        between()
        yield given[start : start + at_once]


@dataclass(frozen=True)
class _Question:
    """`whole` has the greedy answer that is wanted as its target, `forced` the tokens to be teacher-forced, the first `spoken` of
    which are text.
    """

    whole: Row
    forced: Row
    spoken: int


def _measured(view: View, adapter: Adapter | None, reference: Reference, asks: Sequence[Ask], between: Between) -> list[Outcome]:
    questions = _questions(reference, asks, between)
    rows = list(dict.fromkeys(row for one in questions for row in (one.whole, one.forced)))
    of_version = dict(zip(rows, choices(view, adapter, rows, between=between), strict=True))
    of_base = dict(zip(rows, reference.choices(rows, between=between), strict=True))
    outcomes = []
    for ask, one in zip(asks, questions, strict=True):
        local, base_forced = ask.kind == "locality", of_base[one.forced]
        agreed_with = base_forced if local else one.forced.target_ids
        outcomes.append(
            Outcome(
                ask=ask,
                greedy=of_version[one.whole] == one.whole.target_ids,
                tokens=_agreement(of_version[one.forced], agreed_with, one.spoken),
                base_greedy=local or of_base[one.whole] == one.whole.target_ids,
                base_tokens=1.0 if local else _agreement(base_forced, one.forced.target_ids, one.spoken),
            )
        )
    return outcomes


@torch.no_grad()
def choices(view: View, adapter: Adapter | None, rows: Sequence[Row], *, between: Between = lambda: None) -> list[Ids]:
    """The first choice at every target position of each row, rows of like length together.

    All of a row's choices equal its target ids exactly when greedy decoding gives that target.
    """
    found: list[Ids] = [()] * len(rows)
    interventions = None if adapter is None else adapter.interventions
    for chunk in passes(view, rows):
        batch = collate(view.base, [rows[at] for at in chunk], last=LAST_PROMPT_TOKENS if adapter is None else adapter.last)
        picked = greedy_tokens(compute_target_logits(view, batch, interventions)).cpu()  # (N,)
        lengths = [len(rows[at].target_ids) for at in chunk]
        for at, ids in zip(chunk, picked.split(lengths), strict=True):
            found[at] = tuple(ids.tolist())
        between()
    return found


def _questions(reference: Reference, asks: Sequence[Ask], between: Between) -> list[_Question]:
    """All asks as rows; the base model's own answers to all locality prompts come from one call."""
    base = reference.base
    prompts = {ask: encode_prompt(base, ask.prompt, surface=ask.surface) for ask in asks if ask.kind == "locality"}
    answers = dict(zip(prompts, reference.answers(list(prompts.values()), between=between), strict=True))
    return [
        _local_question(base, ask, prompts[ask], answers[ask]) if ask in prompts else _answered_question(base, ask)
        for ask in asks
    ]


def _local_question(base: Base, ask: Ask, prompt: Ids, answer: Ids) -> _Question:
    """The greedy answer must equal the base model's own, to its end; teacher-forced is the named answer, else the same."""
    whole = row_from_ids(base, prompt + answer, len(prompt))
    forced = whole if ask.answer is None else encode_row(base, ask.prompt, ask.answer, surface=ask.surface, eos=False)
    return _Question(whole, forced, len(forced.target_ids))


def _answered_question(base: Base, ask: Ask) -> _Question:
    """EasyEdit's targets have no EOS, so token accuracy is over the tokens before it; a greedy answer must end there."""
    assert ask.answer is not None
    row = encode_row(base, ask.prompt, ask.answer, surface=ask.surface)
    return _Question(row, row, len(encode_row(base, ask.prompt, ask.answer, surface=ask.surface, eos=False).target_ids))


def _forget_oldest(remembered: dict[Any, Ids]) -> None:
    for oldest in list(remembered)[: max(0, len(remembered) - REMEMBERED)]:
        del remembered[oldest]


def _agreement(chosen: Ids, expected: Ids, spoken: int) -> float:
    return sum(left == right for left, right in zip(chosen[:spoken], expected[:spoken], strict=True)) / spoken
