"""Questions with a right answer (the edit's own, rephrases, portability): by tokens, and by what the model writes."""

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
from service.lm.scoring import greedy
from service.lm.tokenizing import decode

MOST_ALIASES = 8  # spellings tried: KnowEdit has up to some hundred, and each costs a pass
ANSWER_TOKENS = 32  # as in LocFT's evaluation

LABELS = {
    "token_accuracy": "teacher-forced token accuracy of the first alias (EasyEdit)",
    "token_accuracy_any": f"teacher-forced token accuracy of the best of at most {MOST_ALIASES} aliases (ours)",
    "exact": "greedy answer to EOS is the first alias, token by token (ours)",
    "exact_any": f"greedy answer to EOS is one of at most {MOST_ALIASES} aliases, token by token (ours)",
    "field_exact": "as locft_exact, but '.' stops only where the alias has none (ours)",
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
    """An ask as rows: one for each spelling of the right answer, EOS included, and how many of its tokens are text."""

    ask: EvalQuestion
    prompt: tuple[int, ...]
    rows: tuple[Row, ...]
    spoken: tuple[int, ...]


def encode_question(base: Base, ask: EvalQuestion) -> EncodedQuestion:
    """Raises Refused where the model cannot be asked that; of its further spellings one that does not fit is left out alone."""
    prompt = encode_prompt(base, ask.prompt, surface=ask.surface)
    rows, spoken = [], []
    for place, one in enumerate(ask.accepted[:MOST_ALIASES]):
        try:
            row, plain = (encode_row(base, ask.prompt, one, surface=ask.surface, eos=eos) for eos in (True, False))
        except Refused:
            if place == 0:
                raise
            continue
        rows.append(row)
        spoken.append(len(plain.target_ids))
    return EncodedQuestion(ask, prompt, tuple(rows), tuple(spoken))


def score_questions(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    questions: Sequence[EncodedQuestion],
    *,
    between: Callable[[], None],
) -> list[ScoredQuestion]:
    """Every question's marks by the names of `LABELS`, `AFTER_LABELS` and `LENGTH_LABELS`, the base model's beside them."""
    prompts, limit = [one.prompt for one in questions], min(ANSWER_TOKENS, reference.longest_answer)
    own = _marks(view, adapter, questions, greedy(view, adapter, prompts, max_new_tokens=limit, between=between), between)
    said = [answer[:limit] for answer in reference.answers(prompts, between=between)]
    beside = _marks(reference.view, None, questions, said, between)
    for marks, base in zip(own, beside, strict=True):
        marks["longer_by"], base["longer_by"] = marks["tokens"] - base["tokens"], 0.0
    return [ScoredQuestion(one.ask, marks, base) for one, marks, base in zip(questions, own, beside, strict=True)]


def _marks(
    view: View,
    adapter: Adapter | None,
    questions: Sequence[EncodedQuestion],
    written: Sequence[tuple[int, ...]],
    between: Callable[[], None],
) -> list[dict[str, float]]:
    rows = [row for one in questions for row in one.rows]
    said = iter(teacher_force(view, adapter, rows, between=between))
    return [
        _by_tokens(one, [next(said) for _ in one.rows]) | _by_text(view.base, one.ask, answer) | measure_length(view.base, answer)
        for one, answer in zip(questions, written, strict=True)
    ]


def _by_tokens(one: EncodedQuestion, said: Sequence[ForcedRow]) -> dict[str, float]:
    """EasyEdit's target has no EOS, so its accuracy is taken over the tokens before it; exact match is over all."""
    shares = [
        agreement(f.choices[:spoken], row.target_ids[:spoken]) for f, row, spoken in zip(said, one.rows, one.spoken, strict=True)
    ]
    right = [f.choices == row.target_ids for f, row in zip(said, one.rows, strict=True)]
    marks = {
        "token_accuracy": shares[0],
        "token_accuracy_any": max(shares),
        "exact": float(right[0]),
        "exact_any": float(any(right)),
    }
    if one.ask.kind == "reliability" and shares[0] == 1.0:
        marks |= {"ends": float(right[0]), "continues": float(not right[0])}
    return marks


def _by_text(base: Base, ask: EvalQuestion, answer: Sequence[int]) -> dict[str, float]:
    text = decode(base, answer)
    return {
        "field_exact": float(matches_field(text, ask.accepted[0])),
        "field_exact_any": float(any(matches_field(text, one) for one in ask.accepted)),
        "locft_exact": float(matches_locft(text, ask.accepted[0])),
    }


def measure_length(base: Base, answer: Sequence[int]) -> dict[str, float]:
    """How long an answer is, and whether it had to be cut."""
    ended = bool(answer) and answer[-1] in base.eos_ids
    return {"tokens": float(len(answer) - ended), "at_limit": float(not ended)}
