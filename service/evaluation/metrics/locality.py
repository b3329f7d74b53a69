"""Locality four ways, none of which judges whether an answer is true: only whether the base model's is kept.

Beside each stands the noise floor: the base model against itself with the same prompts in other batches. What a version does not
exceed there it does not do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.evaluation.metrics.accuracy import ANSWER_TOKENS, lengths
from service.evaluation.metrics.figures import Marked
from service.evaluation.metrics.outcomes import Reference
from service.evaluation.metrics.teacher_forcing import Forced, agreement, divergence, forced
from service.evaluation.records import Ask
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
_OTHER_BATCH = 7  # rows decoded together for the noise floor


@dataclass(frozen=True)
class Neighbour:
    """A locality ask as a prompt and, where the data set names an answer, the row to be teacher-forced."""

    ask: Ask
    prompt: tuple[int, ...]
    named: Row | None


def neighbour(base: Base, ask: Ask) -> Neighbour:
    """Raises Refused where the model cannot be asked that."""
    named = encode_row(base, ask.prompt, ask.answer, surface=ask.surface, eos=False) if ask.answer is not None else None
    return Neighbour(ask, encode_prompt(base, ask.prompt, surface=ask.surface), named)


def mark(
    view: View, adapter: Adapter | None, reference: Reference, neighbours: Sequence[Neighbour], *, between: Callable[[], None]
) -> list[Marked]:
    """Every question's marks by the names of `LABELS` and of `answered.LENGTH_LABELS`; beside them the noise floor."""
    base, prompts = reference.base, [one.prompt for one in neighbours]
    limit = min(ANSWER_TOKENS, reference.longest_answer)
    answers = [answer[:limit] for answer in reference.answers(prompts, between=between)]
    whole = [row_from_ids(base, p + a, len(p)) for p, a in zip(prompts, answers, strict=True)]
    rows = [*whole, *(one.named or row for one, row in zip(neighbours, whole, strict=True))]
    before = forced(reference.view, None, rows, whole=1, between=between)
    again = forced(reference.view, None, rows, whole=1, otherwise=True, between=between)
    after = forced(view, adapter, rows, whole=1, between=between)
    said = decode_greedily(view, adapter, prompts, max_new_tokens=limit, yield_to_answers=between)
    said_again = _otherwise(reference.view, prompts, limit, between)
    count, found = len(neighbours), []
    for at, one in enumerate(neighbours):
        drift = _drift(before, after, at, count) | {"whole_answer": float(said[at] == answers[at])}
        noise = _drift(before, again, at, count) | {"whole_answer": float(said_again[at] == answers[at])}
        grown, was = lengths(base, said[at]), lengths(base, answers[at])
        grown["longer_by"], was["longer_by"] = grown["tokens"] - was["tokens"], 0.0
        found.append(Marked(one.ask, drift | grown, noise | was))
    return found


def _drift(before: Sequence[Forced], after: Sequence[Forced], at: int, count: int) -> dict[str, float]:
    """Of the row of the base model's own answer, `at`, and of the named one, `count` further on."""
    old, new = before[at], after[at]
    assert old.whole is not None and new.whole is not None
    return {
        "token_agreement": agreement(after[at + count].choices, before[at + count].choices),
        "first_token_kl": divergence(old.whole, new.whole),
        "log_probability_change": new.mean - old.mean,
    }


def _otherwise(base: View, prompts: Sequence[tuple[int, ...]], limit: int, between: Callable[[], None]) -> list[tuple[int, ...]]:
    """The base model's answers in other batches: backwards, a few at once."""
    backwards = prompts[::-1]
    found: list[tuple[int, ...]] = []
    for start in range(0, len(backwards), _OTHER_BATCH):
        found += decode_greedily(
            base, None, backwards[start : start + _OTHER_BATCH], max_new_tokens=limit, yield_to_answers=between
        )
    return found[::-1]
