"""Which questions a mark asks: the same ones of every contender, a bounded number, of each measure as many as of the others."""

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from service.bench.ground.records import LOCALITY_GROUPS, WORDING_STRATA, GroundEdit
from service.bench.ground.scores import RELIABILITY, EditQuestion, ProbeScore, list_questions, summarise

MOST = 200  # questions of one mark
KEPT, WORDINGS = "kept", "wordings"
MEASURES = (KEPT, WORDINGS, *LOCALITY_GROUPS)


def choose_questions(edits: Sequence[GroundEdit], seed: int, most: int = MOST) -> list[EditQuestion]:
    """At most `most` questions about edits that are all posted. A measure takes its questions from as many edits as it can: the
    first one of each edit, then the second ones. A function of its arguments.
    """
    every = list_questions(edits, edits)
    waiting = {measure: _in_turn(_of_measure(every, measure), f"{seed} {measure}") for measure in MEASURES}
    chosen: list[EditQuestion] = []
    while any(waiting.values()):
        for questions in waiting.values():
            if questions and len(chosen) < most:
                chosen.append(questions.pop(0))
        if len(chosen) == most:
            break
    return chosen


def summarise_measures(scores: Sequence[ProbeScore]) -> dict[str, Any]:
    """The figure of each measure: a mean over edits, its standard error over edits, and numbers of edits and questions."""
    figures = summarise(scores, ())
    locality: Mapping[str, Any] = figures["locality"]
    return {
        KEPT: figures[RELIABILITY],
        WORDINGS: figures["wordings"]["all"],
        **{name: locality[name] for name in LOCALITY_GROUPS},
    }


def _of_measure(questions: Iterable[EditQuestion], measure: str) -> list[EditQuestion]:
    groups = {KEPT: (RELIABILITY,), WORDINGS: WORDING_STRATA}.get(measure, (measure,))
    return [question for question in questions if question.probe.group in groups]


def _in_turn(questions: Sequence[EditQuestion], seed: str) -> list[EditQuestion]:
    """One question of each edit in turn, edits and questions in a random order."""
    rng = Random(seed)
    by_edit: dict[str, list[EditQuestion]] = {}
    for question in rng.sample(questions, len(questions)):
        by_edit.setdefault(question.edit.id, []).append(question)
    longest = max(map(len, by_edit.values()), default=0)
    return [own[number] for number in range(longest) for own in by_edit.values() if number < len(own)]
