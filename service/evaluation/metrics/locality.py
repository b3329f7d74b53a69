"""Four measures of locality. None judges whether an answer is true; each compares the version with the base model.

Each has a noise floor: the base model against itself, with the same prompts in other batches. A change within the noise floor is
no effect of the version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.evaluation.metrics.accuracy import ANSWER_TOKENS, measure_length
from service.evaluation.metrics.figures import ScoredQuestion
from service.evaluation.metrics.outcomes import Reference
from service.evaluation.metrics.teacher_forcing import ForcedRow, agreement, divergence, teacher_force
from service.evaluation.records import EvalQuestion
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row, row_from_ids
from service.lm.scoring import decode_greedily

LABELS = {
    "token_agreement": "share of the named answer's tokens at which version and base choose alike, teacher-forced (EasyEdit)",
    "whole_answer": f"the whole greedy answer of {ANSWER_TOKENS} tokens is the base model's (WILD)",
    "first_token_kl": "KL(base ‖ version) in nats at the first token of the answer; 0 is best (ours)",
    "log_probability_change": "change of the base answer's log-probability per token, in nats; 0 is best (ours)",
}
NOISE = "noise"  # the base model against itself
_OTHER_BATCH = 7  # rows of one batch when the noise floor is measured


@dataclass(frozen=True)
class Neighbour:
    """A locality question as a prompt, and a row to teacher-force where the data set names an answer."""

    question: EvalQuestion
    prompt: tuple[int, ...]
    named_row: Row | None


def encode_neighbour(base: Base, question: EvalQuestion) -> Neighbour:
    """Encode a locality question. Raises Refused where the model cannot be asked it."""
    named_row = (
        encode_row(base, question.prompt, question.answer, surface=question.surface, eos=False)
        if question.answer is not None
        else None
    )
    return Neighbour(question, encode_prompt(base, question.prompt, surface=question.surface), named_row)


def score_neighbours(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    neighbours: Sequence[Neighbour],
    *,
    yield_to_answers: Callable[[], None],
) -> list[ScoredQuestion]:
    """The scores of every question by the names of `LABELS` and `accuracy.LENGTH_LABELS`; the reference is the noise floor."""
    base, prompts = reference.base, [neighbour.prompt for neighbour in neighbours]
    limit = min(ANSWER_TOKENS, reference.longest_answer)
    answers = [answer[:limit] for answer in reference.decode_answers(prompts, yield_to_answers=yield_to_answers)]
    whole = [row_from_ids(base, p + a, len(p)) for p, a in zip(prompts, answers, strict=True)]
    rows = [*whole, *(neighbour.named_row or row for neighbour, row in zip(neighbours, whole, strict=True))]
    base_rows = teacher_force(reference.view, None, rows, distributions=1, yield_to_answers=yield_to_answers)
    base_noise = teacher_force(reference.view, None, rows, distributions=1, alternative=True, yield_to_answers=yield_to_answers)
    version_rows = teacher_force(view, adapter, rows, distributions=1, yield_to_answers=yield_to_answers)
    version_answers = decode_greedily(view, adapter, prompts, max_new_tokens=limit, yield_to_answers=yield_to_answers)
    noise_answers = _decode_in_other_batches(reference.view, prompts, limit, yield_to_answers)
    count, scored = len(neighbours), []
    for index, neighbour in enumerate(neighbours):
        drift = _drift(base_rows, version_rows, index, count) | {"whole_answer": float(version_answers[index] == answers[index])}
        noise = _drift(base_rows, base_noise, index, count) | {"whole_answer": float(noise_answers[index] == answers[index])}
        version_length, base_length = measure_length(base, version_answers[index]), measure_length(base, answers[index])
        version_length["longer_by"], base_length["longer_by"] = version_length["tokens"] - base_length["tokens"], 0.0
        scored.append(ScoredQuestion(neighbour.question, drift | version_length, noise | base_length))
    return scored


def _drift(before: Sequence[ForcedRow], after: Sequence[ForcedRow], index: int, count: int) -> dict[str, float]:
    """The change of one neighbour. Row `index` has the base model's own answer; row `index + count` has the named answer."""
    old, new = before[index], after[index]
    assert old.distributions is not None and new.distributions is not None
    return {
        "token_agreement": agreement(after[index + count].choices, before[index + count].choices),
        "first_token_kl": divergence(old.distributions, new.distributions),
        "log_probability_change": new.mean - old.mean,
    }


def _decode_in_other_batches(
    base: View, prompts: Sequence[tuple[int, ...]], limit: int, yield_to_answers: Callable[[], None]
) -> list[tuple[int, ...]]:
    """The base model's answers in other batches: in reverse order, a few at once."""
    backwards = prompts[::-1]
    answers: list[tuple[int, ...]] = []
    for start in range(0, len(backwards), _OTHER_BATCH):
        answers += decode_greedily(
            base, None, backwards[start : start + _OTHER_BATCH], max_new_tokens=limit, yield_to_answers=yield_to_answers
        )
    return answers[::-1]
