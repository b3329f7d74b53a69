"""CounterFact's own figures: whether the new answer is likelier than the true one where it should be, and the true one elsewhere.

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
Pair = tuple[EvalQuestion, Row, Row]  # the question with what should be likelier, then what should not


def encode_pairs(base: Base, asks: Sequence[tuple[Record, EvalQuestion]]) -> tuple[list[Pair], int]:
    """The questions of records that say what was true, of locality those about neighbours; and how many were left out because
    the new answer is the true one, so that neither can be likelier.
    """
    found: list[Pair] = []
    alike = 0
    for record, ask in asks:
        if record.ground_truth is None or ask.kind not in NAMES or (ask.kind == "locality" and ask.group != NEIGHBOURHOOD):
            continue
        true = ask.answer if ask.kind == "locality" and ask.answer is not None else record.ground_truth
        first, second = (true, record.target) if ask.kind == "locality" else (ask.answer or record.target, true)
        if first.strip() == second.strip():
            alike += 1
            continue
        try:
            rows = [encode_row(base, ask.prompt, one, surface=ask.surface, eos=False) for one in (first, second)]
        except Refused:
            continue
        found.append((ask, rows[0], rows[1]))
    return found, alike


def score_pairs(
    view: View, adapter: Adapter | None, base: View, found: Sequence[Pair], *, between: Callable[[], None]
) -> list[ScoredQuestion]:
    """Marks by the names of `LABELS`; the base model's beside them."""
    rows = [row for _, *both in found for row in both]
    own, beside = (
        [exp(one.mean) for one in teacher_force(on, using, rows, between=between)]
        for on, using in ((view, adapter), (base, None))
    )
    return [
        ScoredQuestion(ask, _marks(ask, own[2 * at], own[2 * at + 1]), _marks(ask, beside[2 * at], beside[2 * at + 1]))
        for at, (ask, *_) in enumerate(found)
    ]


def _marks(ask: EvalQuestion, wanted: float, other: float) -> dict[str, float]:
    name = NAMES[ask.kind]
    return {f"{name}_success": float(wanted > other), f"{name}_magnitude": wanted - other}
