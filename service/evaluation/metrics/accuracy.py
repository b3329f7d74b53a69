"""Questions with a right answer (the edit's own, rephrases, portability): by tokens, and by what the model writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.domain.errors import Refused
from service.evaluation.metrics.figures import Marked
from service.evaluation.metrics.matching import field_match, locft_match
from service.evaluation.metrics.outcomes import Reference
from service.evaluation.metrics.teacher_forcing import Forced, agreement, forced
from service.evaluation.records import Ask
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

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
class Question:
    """An ask as rows: one for each spelling of the right answer, EOS included, and how many of its tokens are text."""

    ask: Ask
    prompt: tuple[int, ...]
    rows: tuple[Row, ...]
    spoken: tuple[int, ...]


def question(base: Base, ask: Ask) -> Question:
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
    return Question(ask, prompt, tuple(rows), tuple(spoken))


def mark(
    view: View, adapter: Adapter | None, reference: Reference, questions: Sequence[Question], *, between: Callable[[], None]
) -> list[Marked]:
    """Every question's marks by the names of `LABELS`, `AFTER_LABELS` and `LENGTH_LABELS`, the base model's beside them."""
    prompts, limit = [one.prompt for one in questions], min(ANSWER_TOKENS, reference.longest_answer)
    own = _marks(
        view, adapter, questions, decode_greedily(view, adapter, prompts, max_new_tokens=limit, yield_to_answers=between), between
    )
    said = [answer[:limit] for answer in reference.answers(prompts, between=between)]
    beside = _marks(reference.view, None, questions, said, between)
    for marks, base in zip(own, beside, strict=True):
        marks["longer_by"], base["longer_by"] = marks["tokens"] - base["tokens"], 0.0
    return [Marked(one.ask, marks, base) for one, marks, base in zip(questions, own, beside, strict=True)]


def _marks(
    view: View,
    adapter: Adapter | None,
    questions: Sequence[Question],
    written: Sequence[tuple[int, ...]],
    between: Callable[[], None],
) -> list[dict[str, float]]:
    rows = [row for one in questions for row in one.rows]
    said = iter(forced(view, adapter, rows, between=between))
    return [
        _by_tokens(one, [next(said) for _ in one.rows]) | _by_text(view.base, one.ask, answer) | lengths(view.base, answer)
        for one, answer in zip(questions, written, strict=True)
    ]


def _by_tokens(one: Question, said: Sequence[Forced]) -> dict[str, float]:
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


def _by_text(base: Base, ask: Ask, answer: Sequence[int]) -> dict[str, float]:
    text = decode_answer(base, answer)
    return {
        "field_exact": float(field_match(text, ask.accepted[0])),
        "field_exact_any": float(any(field_match(text, one) for one in ask.accepted)),
        "locft_exact": float(locft_match(text, ask.accepted[0])),
    }


def lengths(base: Base, answer: Sequence[int]) -> dict[str, float]:
    """How long an answer is, and whether it had to be cut."""
    ended = bool(answer) and answer[-1] in base.eos_ids
    return {"tokens": float(len(answer) - ended), "at_limit": float(not ended)}
