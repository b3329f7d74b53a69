"""What a base model knows: what it answers with confidence, and the same in every wording. Whether it is right does not count."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.overlay import View
from service.lm.prompts import Row, encode_if_it_fits, row_from_ids
from service.lm.scoring import decode_greedily, greedy_matches, row_losses
from service.lm.tokenizing import decode_answer
from service.locality.questions import KnownAnswer, Question

ANSWER_TOKENS = 12  # a clause that is longer is no short answer
CONFIDENT_LOSS = 0.5  # nats a token: a geometric mean of the tokens' probabilities of 0.6
SURE_LOSS = 0.22  # a geometric mean of 0.8
ASKED_AT_ONCE = 16
_CLAUSE_END = re.compile(r"[\n.!?,;]")


@dataclass(frozen=True)
class _Asked:
    """A question and the row of its first wording with the base's answer."""

    question: Question
    row: Row
    answer: str


def find_known(
    view: View, questions: Sequence[Question], hooks: Hooks, *, most: int | None = None, loss: float = CONFIDENT_LOSS
) -> list[KnownAnswer]:
    """Those of the questions that the base model answers with confidence and the same in every wording, in order; at most `most`.
    An answer costs it `loss` nats a token at most.

    The rows take turns with the wordings. Raises FitCancelled if `hooks` say so.
    """
    known: list[KnownAnswer] = []
    for start in range(0, len(questions), ASKED_AT_ONCE):
        if most is not None and len(known) >= most:
            break
        confident = _keep_confident(view, _ask(view, questions[start : start + ASKED_AT_ONCE], hooks), loss, hooks)
        known += _keep_consistent(view, confident, hooks, first=len(known))
    return known[:most]


def cut_answer(base: Base, ids: Sequence[int]) -> tuple[int, ...]:
    """The tokens of an answer before the end of its first clause; none if it has no end within these tokens."""
    for length in range(1, len(ids) + 1):
        if ids[length - 1] in base.eos_ids or _CLAUSE_END.search(decode_answer(base, ids[:length])):
            return tuple(ids[: length - 1])
    return ()


def _ask(view: View, questions: Sequence[Question], hooks: Hooks) -> list[_Asked]:
    """The answers to the first wordings; questions that the model cannot be asked, or does not answer shortly, are left out."""
    base = view.base
    prompts = [
        (question, encode_if_it_fits(base, question.wordings[0], question.surface, ANSWER_TOKENS)) for question in questions
    ]
    able = [(question, prompt) for question, prompt in prompts if prompt is not None]
    if not able:
        return []
    written = decode_greedily(
        view, None, [prompt for _, prompt in able], max_new_tokens=ANSWER_TOKENS, yield_to_answers=hooks.begin_step
    )
    asked: list[_Asked] = []
    for (question, prompt), ids in zip(able, written, strict=True):
        answer = cut_answer(base, ids)
        if answer:
            asked.append(_Asked(question, row_from_ids(base, (*prompt, *answer), len(prompt)), decode_answer(base, answer)))
    return asked


def _keep_confident(view: View, asked: Sequence[_Asked], most: float, hooks: Hooks) -> list[_Asked]:
    """Those whose answers the base model gives with confidence. Between two likely answers any change flips the greedy one."""
    losses = row_losses(view, [item.row for item in asked], None, hooks.begin_step).tolist() if asked else []
    return [item for item, loss in zip(asked, losses, strict=True) if loss <= most]


def _keep_consistent(view: View, asked: Sequence[_Asked], hooks: Hooks, *, first: int) -> list[KnownAnswer]:
    """Those whose other wordings get the same answer."""
    rows = [(number, row) for number, item in enumerate(asked) for row in _other_rows(view.base, item)]
    hooks.begin_step()
    matches = greedy_matches(view, [row for _, row in rows], None) if rows else []
    others: dict[int, list[Row]] = {number: [] for number in range(len(asked))}
    for (number, row), is_match in zip(rows, matches, strict=True):
        if is_match:
            others[number].append(row)
    kept = [number for number, item in enumerate(asked) if len(others[number]) == len(item.question.wordings) - 1]
    return [_known(asked[number], others[number], turn) for turn, number in enumerate(kept, first)]


def _known(asked: _Asked, others: Sequence[Row], turn: int) -> KnownAnswer:
    rows = [asked.row, *others]
    return KnownAnswer(rows[turn % len(rows)], asked.answer, asked.question.subject, asked.question.relation)


def _other_rows(base: Base, asked: _Asked) -> list[Row]:
    prompts = [encode_if_it_fits(base, wording, asked.question.surface, ANSWER_TOKENS) for wording in asked.question.wordings[1:]]
    return [
        row_from_ids(base, (*prompt, *asked.row.target_ids), len(prompt))
        for prompt in prompts
        if prompt is not None and len(prompt) + len(asked.row.target_ids) <= base.context_length
    ]
