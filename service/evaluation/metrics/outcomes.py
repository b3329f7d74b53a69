"""Outcomes of questions: the answers of a version beside the answers of the base model.

There are two scores. Teacher forcing flatters: a method can score 0.5 by tokens and never give one right answer.

- *greedy*: the greedy answer up to EOS equals the expected one; for locality, it equals the base model's whole greedy answer.
- *tokens*: the share of expected tokens, EOS not counted, that are the first choice after the expected tokens before them. For
  locality, the share of positions of the named answer (else of the base model's answer) with the same choice of both models.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from service.evaluation.metrics.length_batches import batch_by_length
from service.evaluation.records import EvalQuestion
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row, row_from_ids
from service.lm.sampling import greedy_tokens
from service.lm.scoped_rows import score_targets
from service.lm.scoring import decode_greedily

LONGEST_ANSWER = 32  # tokens of a base model's answer that are compared
QUESTIONS_AT_ONCE = 32  # of one batch: between two batches live traffic goes first
CACHE_SIZE = 20_000  # answers of the base model, some megabytes: a server evaluates as long as it runs
Ids = tuple[int, ...]
YieldToAnswers = Callable[[], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """The scores of one question. `base_*` are the base model's; for locality they are 1, since it is the reference."""

    question: EvalQuestion
    greedy: bool
    tokens: float
    base_greedy: bool
    base_tokens: float


class Reference:
    """The base model's answers and choices, with a bounded cache, since many versions are asked the same questions."""

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
        """The most tokens of an answer."""
        return self._longest

    def decode_answers(self, prompts: Sequence[Ids], *, yield_to_answers: YieldToAnswers = lambda: None) -> list[Ids]:
        """The whole greedy answer to each prompt, with EOS if the answer ended before the limit."""
        missing = sorted({prompt for prompt in prompts if prompt not in self._answers}, key=len)
        new_answers = decode_greedily(self.view, None, missing, max_new_tokens=self._longest, yield_to_answers=yield_to_answers)
        self._answers.update(zip(missing, new_answers, strict=True))
        answers = [self._answers[prompt] for prompt in prompts]
        _forget_oldest(self._answers)
        return answers

    def predict_choices(self, rows: Sequence[Row], *, yield_to_answers: YieldToAnswers = lambda: None) -> list[Ids]:
        """The first choice at every target position of each row."""
        missing = list({row: None for row in rows if row not in self._choices})
        self._choices.update(
            zip(missing, predict_choices(self.view, None, missing, yield_to_answers=yield_to_answers), strict=True)
        )
        choices = [self._choices[row] for row in rows]
        _forget_oldest(self._choices)
        return choices


def measure_outcomes(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    questions: Sequence[EvalQuestion],
    *,
    yield_to_answers: YieldToAnswers = lambda: None,
) -> list[Outcome]:
    """The outcome of each question for the version of `view` and `adapter`, in the order of the questions."""
    outcomes: list[Outcome] = []
    for batch in split_into_batches(questions, yield_to_answers):
        outcomes += _measure_batch(view, adapter, reference, batch, yield_to_answers)
    return outcomes


def split_into_batches(
    items: Sequence[T], yield_to_answers: YieldToAnswers, size: int = QUESTIONS_AT_ONCE
) -> Iterator[Sequence[T]]:
    """Batches of `size` items. `yield_to_answers` is called before each batch."""
    for start in range(0, len(items), size):
        yield_to_answers()
        yield items[start : start + size]


@dataclass(frozen=True)
class QuestionRows:
    """A question as rows. The target of `answer_row` is the expected greedy answer, and that of `forced_row` the tokens to be
    teacher-forced; of these the first `text_length` are text.
    """

    answer_row: Row
    forced_row: Row
    text_length: int


def _measure_batch(
    view: View, adapter: Adapter | None, reference: Reference, questions: Sequence[EvalQuestion], yield_to_answers: YieldToAnswers
) -> list[Outcome]:
    question_rows = _encode_questions(reference, questions, yield_to_answers)
    rows = list(dict.fromkeys(row for pair in question_rows for row in (pair.answer_row, pair.forced_row)))
    version_choices = dict(zip(rows, predict_choices(view, adapter, rows, yield_to_answers=yield_to_answers), strict=True))
    base_choices = dict(zip(rows, reference.predict_choices(rows, yield_to_answers=yield_to_answers), strict=True))
    outcomes = []
    for question, pair in zip(questions, question_rows, strict=True):
        is_local, base_forced = question.kind == "locality", base_choices[pair.forced_row]
        expected = base_forced if is_local else pair.forced_row.target_ids
        outcomes.append(
            Outcome(
                question=question,
                greedy=version_choices[pair.answer_row] == pair.answer_row.target_ids,
                tokens=_agreement(version_choices[pair.forced_row], expected, pair.text_length),
                base_greedy=is_local or base_choices[pair.answer_row] == pair.answer_row.target_ids,
                base_tokens=1.0 if is_local else _agreement(base_forced, pair.forced_row.target_ids, pair.text_length),
            )
        )
    return outcomes


@torch.no_grad()
def predict_choices(
    view: View, adapter: Adapter | None, rows: Sequence[Row], *, yield_to_answers: YieldToAnswers = lambda: None
) -> list[Ids]:
    """The first choice at every target position of each row. Rows of similar length share a batch.

    All choices of a row equal its target ids exactly when greedy decoding gives that target.
    """
    results: list[Ids] = [()] * len(rows)
    for chunk in batch_by_length(view, rows):
        _, logits = score_targets(view, [rows[index] for index in chunk], adapter)  # (N, V)
        predictions = greedy_tokens(logits).cpu()  # (N,)
        lengths = [len(rows[index].target_ids) for index in chunk]
        for index, ids in zip(chunk, predictions.split(lengths), strict=True):
            results[index] = tuple(ids.tolist())
        yield_to_answers()
    return results


def _encode_questions(
    reference: Reference, questions: Sequence[EvalQuestion], yield_to_answers: YieldToAnswers
) -> list[QuestionRows]:
    """All questions as rows. The base model's own answers to all locality prompts come from one call."""
    base = reference.base
    prompts = {
        question: encode_prompt(base, question.prompt, surface=question.surface)
        for question in questions
        if question.kind == "locality"
    }
    answers = dict(zip(prompts, reference.decode_answers(list(prompts.values()), yield_to_answers=yield_to_answers), strict=True))
    return [
        _encode_locality(base, question, prompts[question], answers[question])
        if question in prompts
        else _encode_answered(base, question)
        for question in questions
    ]


def _encode_locality(base: Base, question: EvalQuestion, prompt: Ids, answer: Ids) -> QuestionRows:
    """The greedy answer must equal the base model's whole answer. The named answer is teacher-forced, else the same answer."""
    answer_row = row_from_ids(base, prompt + answer, len(prompt))
    forced_row = (
        answer_row
        if question.answer is None
        else encode_row(base, question.prompt, question.answer, surface=question.surface, eos=False)
    )
    return QuestionRows(answer_row, forced_row, len(forced_row.target_ids))


def _encode_answered(base: Base, question: EvalQuestion) -> QuestionRows:
    """EasyEdit's targets have no EOS, so token accuracy covers the tokens before EOS. A greedy answer must end there."""
    assert question.answer is not None
    row = encode_row(base, question.prompt, question.answer, surface=question.surface)
    return QuestionRows(
        row, row, len(encode_row(base, question.prompt, question.answer, surface=question.surface, eos=False).target_ids)
    )


def _forget_oldest(cache: dict[Any, Ids]) -> None:
    for oldest in list(cache)[: max(0, len(cache) - CACHE_SIZE)]:
        del cache[oldest]


def _agreement(choices: Ids, expected: Ids, length: int) -> float:
    return sum(left == right for left, right in zip(choices[:length], expected[:length], strict=True)) / length
