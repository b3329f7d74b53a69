"""CounterFact's own figures: whether the new answer is likelier than the true one on the edit, and the true one on neighbours.

p(answer) is exp of the mean log-probability per token, as in ROME's evaluation. Success is p(new) > p(true) on the edit's prompt
(efficacy) and its rephrases (paraphrase), p(true) > p(new) on neighbouring subjects; magnitude is the difference.
"""

from collections.abc import Callable, Sequence
from math import exp

from service.domain.errors import Refused
from service.evaluation.datasets.counterfact import NEIGHBOURHOOD
from service.evaluation.metrics.figures import ScoredQuestion
from service.evaluation.metrics.teacher_forcing import teacher_force
from service.evaluation.records import EvalQuestion, Record
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_row

NAMES = {"reliability": "efficacy", "generality": "paraphrase", "locality": "neighbourhood"}
LABELS = {
    "efficacy_success": "p(new) > p(true) on the edit's prompt (CounterFact, ROME)",
    "efficacy_magnitude": "p(new) - p(true) on the edit's prompt",
    "paraphrase_success": "p(new) > p(true) on rephrases",
    "paraphrase_magnitude": "p(new) - p(true) on rephrases",
    "neighbourhood_success": "p(true) > p(new) on neighbouring subjects",
    "neighbourhood_magnitude": "p(true) - p(new) on neighbouring subjects",
}
AnswerPair = tuple[EvalQuestion, Row, Row]  # the question, the answer that should be likelier, and the other answer


def encode_pairs(base: Base, questions: Sequence[tuple[Record, EvalQuestion]]) -> tuple[list[AnswerPair], int]:
    """The questions of records with a true answer; of locality questions those about neighbours alone.

    The second value counts the questions whose new answer is the true one, so that neither can be likelier.
    """
    pairs: list[AnswerPair] = []
    equal_count = 0
    for record, question in questions:
        if (
            record.ground_truth is None
            or question.kind not in NAMES
            or (question.kind == "locality" and question.group != NEIGHBOURHOOD)
        ):
            continue
        true_answer = question.answer if question.kind == "locality" and question.answer is not None else record.ground_truth
        likely, unlikely = (
            (true_answer, record.target) if question.kind == "locality" else (question.answer or record.target, true_answer)
        )
        if likely.strip() == unlikely.strip():
            equal_count += 1
            continue
        try:
            rows = [
                encode_row(base, question.prompt, answer, surface=question.surface, eos=False) for answer in (likely, unlikely)
            ]
        except Refused:
            continue
        pairs.append((question, rows[0], rows[1]))
    return pairs, equal_count


def score_pairs(
    view: View, adapter: Adapter | None, base: View, pairs: Sequence[AnswerPair], *, yield_to_answers: Callable[[], None]
) -> list[ScoredQuestion]:
    """The scores of every pair by the names of `LABELS`, and those of the base model."""
    rows = [row for _, *row_pair in pairs for row in row_pair]
    version_scores, base_scores = (
        [exp(result.mean) for result in teacher_force(model_view, model_adapter, rows, yield_to_answers=yield_to_answers)]
        for model_view, model_adapter in ((view, adapter), (base, None))
    )
    return [
        ScoredQuestion(
            question,
            _score_pair(question, version_scores[2 * index], version_scores[2 * index + 1]),
            _score_pair(question, base_scores[2 * index], base_scores[2 * index + 1]),
        )
        for index, (question, *_) in enumerate(pairs)
    ]


def _score_pair(question: EvalQuestion, expected: float, other: float) -> dict[str, float]:
    name = NAMES[question.kind]
    return {f"{name}_success": float(expected > other), f"{name}_magnitude": expected - other}
