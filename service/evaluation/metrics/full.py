"""All figures of the field for one version, side by side, each with its n and the label of who defines it so.

Questions are asked some at a time, and `between` is called after every batch, so that whoever needs the machine more goes first.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from service.domain.errors import Refused
from service.evaluation.contradictions import select_questions
from service.evaluation.metrics import accuracy, contrast, locality
from service.evaluation.metrics.figures import (
    Figure,
    ScoredQuestion,
    build_figure,
    build_figures,
    build_group_figures,
    build_knowedit_figure,
)
from service.evaluation.metrics.fluency import LONGEST, entropy
from service.evaluation.metrics.opinions import measure_opinions
from service.evaluation.metrics.outcomes import Between, Reference, split_into_batches
from service.evaluation.records import EvalQuestion, Record
from service.evaluation.report import Moment
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import encode_prompt
from service.lm.scoring import greedy
from service.lm.tokenizing import decode

WRITTEN_AT_ONCE = 8  # prompts written on for 100 tokens
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
    between: Between = lambda: None,
    moment: Moment = "after_all",
    surfaces: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every figure as JSON. `live`: what the version answers, in order of acceptance; by default the records themselves.

    `left_out` counts questions that another live edit contradicts, and those that the model cannot be asked (too long for its
    context, control tokens in them); of CounterFact's pairs those whose answers are one, of ConvSent's topics those beside which
    every other one is edited. `moment` says when this is measured and changes nothing.
    """
    base, live = reference.base, list(records if live is None else live)
    asked, contradicted = select_questions(records, surfaces or base.surfaces, live)
    questions, unfit_questions = _encoded(accuracy.encode_question, base, [ask for _, ask in asked if ask.kind != "locality"])
    neighbours, unfit_neighbours = _encoded(locality.encode_neighbour, base, [ask for _, ask in asked if ask.kind == "locality"])
    marked: list[ScoredQuestion] = []
    for some in split_into_batches(questions, between):
        marked += accuracy.score_questions(view, adapter, reference, some, between=between)
    local: list[ScoredQuestion] = []
    for several in split_into_batches(neighbours, between):
        local += locality.score_neighbours(view, adapter, reference, several, between=between)
    against: list[ScoredQuestion] = []
    pairs, alike = contrast.encode_pairs(base, asked)
    for some_pairs in split_into_batches(pairs, between):
        against += contrast.score_pairs(view, adapter, reference.view, some_pairs, between=between)
    surface = (surfaces or base.surfaces)[0]
    judged, without_drawdown = measure_opinions(
        view, adapter, reference.view, records, live=live, surface=surface, between=between
    )
    return {
        "moment": moment,
        "edits": len(records),
        "questions": len(marked) + len(local),
        "left_out": {
            "contradicted": contradicted,
            "cannot_be_asked": unfit_questions + unfit_neighbours,
            "new_answer_is_the_true_one": alike,
            "no_unedited_topic": without_drawdown,
        },
        **{kind: _of_kind(kind, marked) for kind in ("reliability", "generality", "portability")},
        "locality": build_figures(local, locality.LABELS, locality.NOISE)
        | {
            "groups": build_group_figures(local, locality.LABELS, locality.NOISE),
            "knowedit": build_knowedit_figure(
                local, "token_agreement", "token agreement by KnowEdit's aggregation: group, case, all"
            ),
        },
        "counterfact": build_figures(against, contrast.LABELS, "base"),
        "length": {
            "edit": build_figures([one for one in marked if one.ask.kind == "reliability"], accuracy.LENGTH_LABELS, "base"),
            "locality": build_figures(local, accuracy.LENGTH_LABELS, "base"),
        },
        "after_object": build_figures(marked, accuracy.AFTER_LABELS, "base"),
        "fluency": _fluency(view, adapter, reference.view, records, surface, between),
        "opinions": judged,
    }


def _of_kind(kind: str, marked: Sequence[ScoredQuestion]) -> dict[str, Any]:
    own = [one for one in marked if one.ask.kind == kind]
    found: dict[str, Any] = build_figures(own, accuracy.LABELS, "base")
    if kind == "generality":
        found["groups"] = build_group_figures(own, accuracy.LABELS, "base")
    if kind == "portability":
        found["groups"] = build_group_figures(own, accuracy.LABELS, "base")
        found["knowedit"] = build_knowedit_figure(
            own, "token_accuracy", "token accuracy by KnowEdit's aggregation: group, case, all"
        )
    return found


def _fluency(
    view: View, adapter: Adapter | None, base: View, records: Sequence[Record], surface: str, between: Between
) -> Figure:
    texts = [prompt for record in records for prompt in (record.generation or (record.prompt,))]
    prompts, _ = _encoded(lambda on, text: (text, encode_prompt(on, text, surface=surface)), base.base, texts[:MOST_GENERATIONS])
    own: list[float] = []
    beside: list[float] = []
    for some in split_into_batches(prompts, between, WRITTEN_AT_ONCE):
        for values, on, using in ((own, view, adapter), (beside, base, None)):
            written = greedy(on, using, [ids for _, ids in some], max_new_tokens=LONGEST, between=between)
            values += [entropy(f"{text} {decode(on.base, ids)}") for (text, _), ids in zip(some, written, strict=True)]
    return build_figure(own, FLUENCY_LABEL, base=build_figure(beside, "")["score"])


def _encoded(encode: Callable[[Base, Any], T], base: Base, given: Sequence[EvalQuestion] | Sequence[str]) -> tuple[list[T], int]:
    """What the model can be asked, and how much it cannot."""
    found: list[T] = []
    for one in given:
        try:
            found.append(encode(base, one))
        except Refused:
            continue
    return found, len(given) - len(found)
