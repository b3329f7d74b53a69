"""All figures of the field for one version, each with its n and a label with the source of the definition.

Questions are asked in batches. `yield_to_answers` is called between batches, so that live traffic goes first.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from service.domain.errors import Refused
from service.evaluation.contradictions import select_questions
from service.evaluation.metrics import accuracy, contrast, locality
from service.evaluation.metrics.convsent import measure_opinions
from service.evaluation.metrics.figures import (
    Figure,
    ScoredQuestion,
    build_figure,
    build_figures,
    build_group_figures,
    build_knowedit_figure,
)
from service.evaluation.metrics.fluency import LONGEST, entropy
from service.evaluation.metrics.outcomes import Reference, YieldToAnswers, split_into_batches
from service.evaluation.records import EvalQuestion, Record
from service.evaluation.report import Moment
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

WRITTEN_AT_ONCE = 8  # prompts that are continued for 100 tokens in one batch
MOST_GENERATIONS = 200
FLUENCY_LABEL = f"n-gram entropy in bits (2: 2/3, 3: 4/3) of prompt and at most {LONGEST} greedy tokens (CounterFact, EasyEdit)"
T = TypeVar("T")


def measure_full(
    view: View,
    adapter: Adapter | None,
    reference: Reference,
    records: Sequence[Record],
    *,
    live: Iterable[Record] | None = None,
    yield_to_answers: YieldToAnswers = lambda: None,
    moment: Moment = "after_all",
    surfaces: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every figure as JSON. `live` are the edits that the version answers, in order of submission; by default the records.

    `left_out` counts questions that another live edit contradicts, questions that the model cannot be asked (longer than its
    context, or with control tokens), CounterFact's pairs with two equal answers, and ConvSent's topics for which every other
    topic is edited. `moment` is a label in the result.
    """
    base, live = reference.base, list(records if live is None else live)
    candidates, contradicted = select_questions(records, surfaces or base.surfaces, live)
    questions, unfit_questions = _encode_all(
        accuracy.encode_question, base, [question for _, question in candidates if question.kind != "locality"]
    )
    neighbours, unfit_neighbours = _encode_all(
        locality.encode_neighbour, base, [question for _, question in candidates if question.kind == "locality"]
    )
    scored: list[ScoredQuestion] = []
    for batch in split_into_batches(questions, yield_to_answers):
        scored += accuracy.score_questions(view, adapter, reference, batch, yield_to_answers=yield_to_answers)
    scored_neighbours: list[ScoredQuestion] = []
    for neighbour_batch in split_into_batches(neighbours, yield_to_answers):
        scored_neighbours += locality.score_neighbours(
            view, adapter, reference, neighbour_batch, yield_to_answers=yield_to_answers
        )
    scored_pairs: list[ScoredQuestion] = []
    pairs, equal_count = contrast.encode_pairs(base, candidates)
    for pair_batch in split_into_batches(pairs, yield_to_answers):
        scored_pairs += contrast.score_pairs(view, adapter, reference.view, pair_batch, yield_to_answers=yield_to_answers)
    surface = (surfaces or base.surfaces)[0]
    opinion_figures, without_drawdown = measure_opinions(
        view, adapter, reference.view, records, live=live, surface=surface, yield_to_answers=yield_to_answers
    )
    return {
        "moment": moment,
        "edits": len(records),
        "questions": len(scored) + len(scored_neighbours),
        "left_out": {
            "contradicted": contradicted,
            "cannot_be_asked": unfit_questions + unfit_neighbours,
            "new_answer_is_the_true_one": equal_count,
            "no_unedited_topic": without_drawdown,
        },
        **{kind: _build_kind_figures(kind, scored) for kind in ("reliability", "generality", "portability")},
        "locality": build_figures(scored_neighbours, locality.LABELS, locality.NOISE)
        | {
            "groups": build_group_figures(scored_neighbours, locality.LABELS, locality.NOISE),
            "knowedit": build_knowedit_figure(
                scored_neighbours, "token_agreement", "token agreement by KnowEdit's aggregation: group, case, all"
            ),
        },
        "counterfact": build_figures(scored_pairs, contrast.LABELS, "base"),
        "length": {
            "edit": build_figures(
                [question for question in scored if question.question.kind == "reliability"], accuracy.LENGTH_LABELS, "base"
            ),
            "locality": build_figures(scored_neighbours, accuracy.LENGTH_LABELS, "base"),
        },
        "after_object": build_figures(scored, accuracy.AFTER_LABELS, "base"),
        "fluency": _fluency(view, adapter, reference.view, records, surface, yield_to_answers),
        "opinions": opinion_figures,
    }


def _build_kind_figures(kind: str, scored: Sequence[ScoredQuestion]) -> dict[str, Any]:
    kind_scored = [question for question in scored if question.question.kind == kind]
    figures: dict[str, Any] = build_figures(kind_scored, accuracy.LABELS, "base")
    if kind == "generality":
        figures["groups"] = build_group_figures(kind_scored, accuracy.LABELS, "base")
    if kind == "portability":
        figures["groups"] = build_group_figures(kind_scored, accuracy.LABELS, "base")
        figures["knowedit"] = build_knowedit_figure(
            kind_scored, "token_accuracy", "token accuracy by KnowEdit's aggregation: group, case, all"
        )
    return figures


def _fluency(
    view: View, adapter: Adapter | None, base: View, records: Sequence[Record], surface: str, yield_to_answers: YieldToAnswers
) -> Figure:
    texts = [prompt for record in records for prompt in (record.generation or (record.prompt,))]
    prompts, _ = _encode_all(
        lambda model_view, text: (text, encode_prompt(model_view, text, surface=surface)), base.base, texts[:MOST_GENERATIONS]
    )
    version_values: list[float] = []
    base_values: list[float] = []
    for batch in split_into_batches(prompts, yield_to_answers, WRITTEN_AT_ONCE):
        for values, model_view, model_adapter in ((version_values, view, adapter), (base_values, base, None)):
            written = decode_greedily(
                model_view, model_adapter, [ids for _, ids in batch], max_new_tokens=LONGEST, yield_to_answers=yield_to_answers
            )
            values += [
                entropy(f"{text} {decode_answer(model_view.base, ids)}") for (text, _), ids in zip(batch, written, strict=True)
            ]
    return build_figure(version_values, FLUENCY_LABEL, base=build_figure(base_values, "")["score"])


def _encode_all(
    encode: Callable[[Base, Any], T], base: Base, items: Sequence[EvalQuestion] | Sequence[str]
) -> tuple[list[T], int]:
    """The items that the model can be asked, encoded, and the number of the others."""
    encoded: list[T] = []
    for item in items:
        try:
            encoded.append(encode(base, item))
        except Refused:
            continue
    return encoded, len(items) - len(encoded)
