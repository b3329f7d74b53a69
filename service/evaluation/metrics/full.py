"""All figures of the field for one version, side by side, each with its n and the label of who defines it so.

Questions are asked some at a time, and `between` is called after every batch, so that whoever needs the machine more goes first.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from service.domain.errors import Refused
from service.evaluation.contradictions import askable
from service.evaluation.metrics import accuracy, contrast, locality
from service.evaluation.metrics.figures import Figure, Marked, figure, figures, grouped, knowedit
from service.evaluation.metrics.fluency import LONGEST, entropy
from service.evaluation.metrics.opinions import opinions
from service.evaluation.metrics.outcomes import Between, Reference, in_pieces
from service.evaluation.records import Ask, Record
from service.evaluation.report import Moment
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

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
    asked, contradicted = askable(records, surfaces or base.surfaces, live)
    questions, unfit_questions = _encoded(accuracy.question, base, [ask for _, ask in asked if ask.kind != "locality"])
    neighbours, unfit_neighbours = _encoded(locality.neighbour, base, [ask for _, ask in asked if ask.kind == "locality"])
    marked: list[Marked] = []
    for some in in_pieces(questions, between):
        marked += accuracy.mark(view, adapter, reference, some, between=between)
    local: list[Marked] = []
    for several in in_pieces(neighbours, between):
        local += locality.mark(view, adapter, reference, several, between=between)
    against: list[Marked] = []
    pairs, alike = contrast.pairs(base, asked)
    for some_pairs in in_pieces(pairs, between):
        against += contrast.mark(view, adapter, reference.view, some_pairs, between=between)
    surface = (surfaces or base.surfaces)[0]
    judged, without_drawdown = opinions(view, adapter, reference.view, records, live=live, surface=surface, between=between)
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
        "locality": figures(local, locality.LABELS, locality.NOISE)
        | {
            "groups": grouped(local, locality.LABELS, locality.NOISE),
            "knowedit": knowedit(local, "token_agreement", "token agreement by KnowEdit's aggregation: group, case, all"),
        },
        "counterfact": figures(against, contrast.LABELS, "base"),
        "length": {
            "edit": figures([one for one in marked if one.ask.kind == "reliability"], accuracy.LENGTH_LABELS, "base"),
            "locality": figures(local, accuracy.LENGTH_LABELS, "base"),
        },
        "after_object": figures(marked, accuracy.AFTER_LABELS, "base"),
        "fluency": _fluency(view, adapter, reference.view, records, surface, between),
        "opinions": judged,
    }


def _of_kind(kind: str, marked: Sequence[Marked]) -> dict[str, Any]:
    own = [one for one in marked if one.ask.kind == kind]
    found: dict[str, Any] = figures(own, accuracy.LABELS, "base")
    if kind == "generality":
        found["groups"] = grouped(own, accuracy.LABELS, "base")
    if kind == "portability":
        found["groups"] = grouped(own, accuracy.LABELS, "base")
        found["knowedit"] = knowedit(own, "token_accuracy", "token accuracy by KnowEdit's aggregation: group, case, all")
    return found


def _fluency(
    view: View, adapter: Adapter | None, base: View, records: Sequence[Record], surface: str, between: Between
) -> Figure:
    texts = [prompt for record in records for prompt in (record.generation or (record.prompt,))]
    prompts, _ = _encoded(lambda on, text: (text, encode_prompt(on, text, surface=surface)), base.base, texts[:MOST_GENERATIONS])
    own: list[float] = []
    beside: list[float] = []
    for some in in_pieces(prompts, between, WRITTEN_AT_ONCE):
        for values, on, using in ((own, view, adapter), (beside, base, None)):
            written = decode_greedily(on, using, [ids for _, ids in some], max_new_tokens=LONGEST, yield_to_answers=between)
            values += [entropy(f"{text} {decode_answer(on.base, ids)}") for (text, _), ids in zip(some, written, strict=True)]
    return figure(own, FLUENCY_LABEL, base=figure(beside, "")["score"])


def _encoded(encode: Callable[[Base, Any], T], base: Base, given: Sequence[Ask] | Sequence[str]) -> tuple[list[T], int]:
    """What the model can be asked, and how much it cannot."""
    found: list[T] = []
    for one in given:
        try:
            found.append(encode(base, one))
        except Refused:
            continue
    return found, len(given) - len(found)
