"""ConvSent's two figures, as EasyEdit computes them.

es = σ(l₊ − l₋) · min(1, exp(l₊ − l₊ᵇ)). l₊ and l₋ are the mean log-probabilities per token of replies of the wanted and of the
opposite sentiment to a question about the topic; l₊ᵇ is the base model's. dd = KL(base ‖ version), the mean over the tokens of
replies about another topic. The other topic is that of the next record that no live edit is about, since an edited topic is
meant to change.
"""

from collections.abc import Callable, Sequence
from math import exp

from service.domain.edit import normalise
from service.domain.errors import Refused
from service.evaluation.metrics.figures import Figure, build_figure, mean
from service.evaluation.metrics.teacher_forcing import divergence, teacher_force
from service.evaluation.records import Record
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_row

ES_LABEL = "edit success: σ(l₊ − l₋) · min(1, exp(l₊ − base l₊)) on replies about the topic (ConvSent, EasyEdit)"
DD_LABEL = "drawdown: KL(base ‖ version) in nats per token of replies about an unedited topic; 0 is best (ConvSent, EasyEdit)"
REPLY_TOKENS = 256
REPLIES_AT_ONCE = 2  # the whole distributions of both models are in memory for these


def measure_opinions(
    view: View,
    adapter: Adapter | None,
    base: View,
    records: Sequence[Record],
    *,
    live: Sequence[Record],
    surface: str,
    yield_to_answers: Callable[[], None],
) -> tuple[dict[str, Figure], int]:
    """`es` and `dd` over the records with replies of both sentiments; n counts records.

    The second value counts records without `dd`, because edits of `live` are about the topics of all other records.
    """
    pairs = [(record, sides) for record in records if all(sides := _sides(base.base, record, surface))]
    unedited = [not _is_edited(record, live) for record, _ in pairs]
    success, drawdown = [], []
    for index, (_, (wanted, opposite)) in enumerate(pairs):
        success.append(_success(view, adapter, base, wanted, opposite, yield_to_answers))
        order = [*range(index + 1, len(pairs)), *range(index)]
        neutral_sides = next((pairs[position][1] for position in order if unedited[position]), None)
        if neutral_sides is not None:
            drawdown.append(_drawdown(view, adapter, base, [*neutral_sides[0], *neutral_sides[1]], yield_to_answers))
    return {"es": build_figure(success, ES_LABEL), "dd": build_figure(drawdown, DD_LABEL)}, len(pairs) - len(drawdown)


def _is_edited(record: Record, live: Sequence[Record]) -> bool:
    """Whether any live edit is about a record's topic: the record's subject, or the question that its replies answer."""
    topic, first_question = normalise(record.subject or ""), normalise(record.generation[0])
    return any(first_question in normalise(edit.prompt) or (topic and topic == normalise(edit.subject or "")) for edit in live)


def _sides(base: Base, record: Record, surface: str) -> tuple[list[Row], list[Row]]:
    """The replies of the wanted and of the opposite sentiment as rows. Replies longer than the context are left out."""
    wanted, opposite = (_rows(base, record, replies, surface) for replies in (record.wanted, record.opposite))
    return wanted, opposite


def _success(
    view: View,
    adapter: Adapter | None,
    base: View,
    wanted: Sequence[Row],
    opposite: Sequence[Row],
    yield_to_answers: Callable[[], None],
) -> float:
    wanted_mean, opposite_mean, base_mean = (
        mean([row.mean for row in teacher_force(model_view, model_adapter, rows, yield_to_answers=yield_to_answers)]) or 0.0
        for model_view, model_adapter, rows in ((view, adapter, wanted), (view, adapter, opposite), (base, None, wanted))
    )
    return min(1.0, exp(min(0.0, wanted_mean - base_mean))) / (1.0 + exp(min(700.0, opposite_mean - wanted_mean)))


def _drawdown(
    view: View, adapter: Adapter | None, base: View, rows: Sequence[Row], yield_to_answers: Callable[[], None]
) -> float:
    divergences: list[float] = []
    for start in range(0, len(rows), REPLIES_AT_ONCE):
        batch = rows[start : start + REPLIES_AT_ONCE]
        before = teacher_force(base, None, batch, distributions=REPLY_TOKENS, yield_to_answers=yield_to_answers)
        after = teacher_force(view, adapter, batch, distributions=REPLY_TOKENS, yield_to_answers=yield_to_answers)
        for old, new in zip(before, after, strict=True):
            assert old.distributions is not None and new.distributions is not None
            divergences.append(divergence(old.distributions, new.distributions))
    return sum(divergences) / len(divergences)


def _rows(base: Base, record: Record, replies: Sequence[str], surface: str) -> list[Row]:
    rows = []
    for reply in replies if record.generation else ():
        try:
            rows.append(encode_row(base, record.generation[0], reply, surface=surface, eos=False))
        except Refused:
            continue
    return rows
