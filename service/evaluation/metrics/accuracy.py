"""Accuracy on questions with a right answer (the edit's own, rephrases, portability): by tokens, and by the generated text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.domain.errors import Refused
from service.evaluation.metrics.figures import ScoredQuestion
from service.evaluation.metrics.matching import matches_field, matches_locft
from service.evaluation.metrics.outcomes import Reference
from service.evaluation.metrics.teacher_forcing import ForcedRow, agreement, teacher_force
from service.evaluation.records import EvalQuestion
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_ids

MOST_ALIASES = 8  # spellings tried: KnowEdit has up to some hundred, and each costs a pass
ANSWER_TOKENS = 32  # as in LocFT's evaluation

LABELS = {
    "token_accuracy": "teacher-forced token accuracy of the first alias (EasyEdit)",
    "token_accuracy_any": f"teacher-forced token accuracy of the best of at most {MOST_ALIASES} aliases (ours)",
    "exact": "greedy answer to EOS is the first alias, token by token (ours)",
    "exact_any": f"greedy answer to EOS is one of at most {MOST_ALIASES} aliases, token by token (ours)",
    "field_exact": "as locft_exact, but '.' stops only where the alias has none, and a newline only behind text (ours)",
    "field_exact_any": "as field_exact, for any alias (ours)",
    "locft_exact": f"greedy text of {ANSWER_TOKENS} tokens to '.' or newline, SQuAD-normalised, is the first alias (WILD, LocFT)",
}
AFTER_LABELS = {
    "ends": "of answers that give the whole target, the share that end right there (EOS)",
    "continues": "of answers that give the whole target, the share that go on",
}
LENGTH_LABELS = {
    "tokens": f"tokens of the greedy answer, EOS not counted, at most {ANSWER_TOKENS}",
    "longer_by": "tokens more than the base model's answer to the same prompt",
    "at_limit": "share of answers that had not ended by the limit",
}


@dataclass(frozen=True)
class EncodedQuestion:
    """A question as token ids. `rows` has one row for each spelling of the right answer, EOS included.

    `text_lengths` are the numbers of target tokens of each row without EOS.
    """

    question: EvalQuestion
    prompt: tuple[int, ...]
    rows: tuple[Row, ...]
    text_lengths: tuple[int, ...]


def encode_question(base: Base, question: EvalQuestion) -> EncodedQuestion:
    """Encode a question. Raises Refused where the first spelling does not fit; further spellings that do not fit are left out."""
    prompt = encode_prompt(base, question.prompt, surface=question.surface)
    rows, text_lengths = [], []
    for index, answer in enumerate(question.answers[:MOST_ALIASES]):
        try:
            row, text_row = (
                encode_row(base, question.prompt, answer, surface=question.surface, eos=eos) for eos in (True, False)
            )
        except Refused:
            if index == 0:
                raise
            continue
        rows.append(row)
        text_lengths.append(len(text_row.target_ids))
    return EncodedQuestion(question, prompt, tuple(rows), tuple(text_lengths))


def score_questions(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    questions: Sequence[EncodedQuestion],
    *,
    yield_to_answers: Callable[[], None],
) -> list[ScoredQuestion]:
    """The scores of every question by the names of `LABELS`, `AFTER_LABELS` and `LENGTH_LABELS`, and those of the base model."""
    prompts, limit = [question.prompt for question in questions], min(ANSWER_TOKENS, reference.longest_answer)
    version_scores = _score_batch(
        view,
        adapter,
        questions,
        decode_greedily(view, adapter, prompts, max_new_tokens=limit, yield_to_answers=yield_to_answers),
        yield_to_answers,
    )
    base_answers = [answer[:limit] for answer in reference.decode_answers(prompts, yield_to_answers=yield_to_answers)]
    base_scores = _score_batch(reference.view, None, questions, base_answers, yield_to_answers)
    for scores, base in zip(version_scores, base_scores, strict=True):
        scores["longer_by"], base["longer_by"] = scores["tokens"] - base["tokens"], 0.0
    return [
        ScoredQuestion(question.question, scores, base)
        for question, scores, base in zip(questions, version_scores, base_scores, strict=True)
    ]


def _score_batch(
    view: View,
    adapter: Adapter | None,
    questions: Sequence[EncodedQuestion],
    answers: Sequence[tuple[int, ...]],
    yield_to_answers: Callable[[], None],
) -> list[dict[str, float]]:
    rows = [row for question in questions for row in question.rows]
    forced_rows = iter(teacher_force(view, adapter, rows, yield_to_answers=yield_to_answers))
    return [
        _score_tokens(question, [next(forced_rows) for _ in question.rows])
        | _score_text(view.base, question.question, answer)
        | measure_length(view.base, answer)
        for question, answer in zip(questions, answers, strict=True)
    ]


def _score_tokens(question: EncodedQuestion, forced_rows: Sequence[ForcedRow]) -> dict[str, float]:
    """EasyEdit's target has no EOS, so token accuracy covers the tokens before EOS. Exact match covers all tokens."""
    accuracies = [
        agreement(f.choices[:length], row.target_ids[:length])
        for f, row, length in zip(forced_rows, question.rows, question.text_lengths, strict=True)
    ]
    matches = [f.choices == row.target_ids for f, row in zip(forced_rows, question.rows, strict=True)]
    scores = {
        "token_accuracy": accuracies[0],
        "token_accuracy_any": max(accuracies),
        "exact": float(matches[0]),
        "exact_any": float(any(matches)),
    }
    if question.question.kind == "reliability" and accuracies[0] == 1.0:
        scores |= {"ends": float(matches[0]), "continues": float(not matches[0])}
    return scores


def _score_text(base: Base, question: EvalQuestion, answer: Sequence[int]) -> dict[str, float]:
    generated = decode_ids(base, answer)
    text = generated.lstrip()
    return {
        "field_exact": float(matches_field(text, question.answers[0])),
        "field_exact_any": float(any(matches_field(text, alias) for alias in question.answers)),
        "locft_exact": float(matches_locft(generated, question.answers[0])),
    }


def measure_length(base: Base, answer: Sequence[int]) -> dict[str, float]:
    """The number of tokens of an answer without EOS, and whether the answer reached the limit."""
    ended = bool(answer) and answer[-1] in base.eos_ids
    return {"tokens": float(len(answer) - ended), "at_limit": float(not ended)}
