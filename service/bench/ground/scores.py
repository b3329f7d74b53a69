"""The scores of a contender on a ground. Each figure is a mean over edits of the mean over their probes, so that an edit with
many probes weighs as much as one with few; its standard error is clustered by edit in the same way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch

from service.bench.ground.asking import Ask, encode_or_none
from service.bench.ground.contenders import Contender
from service.bench.ground.judging import first_clause, says
from service.bench.ground.records import (
    CONFIDENT,
    LOCALITY_GROUPS,
    PROSE_GROUPS,
    WORDING_STRATA,
    GroundEdit,
    GroundProbe,
    ProsePassage,
)
from service.evaluation.metrics.teacher_forcing import ForcedRow, divergence, teacher_force
from service.lm.overlay import View
from service.lm.prompts import encode_row
from service.lm.scoped_rows import acts_on

RELIABILITY = "reliability"
PROSE_TOKENS = 48
PASSAGES_AT_ONCE = 8  # the whole distributions of both models are in memory for these


@dataclass(frozen=True)
class EditQuestion:
    """One probe of an edit, or under the group `reliability` the edit itself."""

    edit: GroundEdit
    probe: GroundProbe


@dataclass(frozen=True)
class ProbeScore:
    """One probe of one edit. `right`: the answer says what it should. `unchanged`: its first clause is the base model's. `acted`:
    an adapter acted on its prompt.
    """

    edit: str
    group: str
    right: bool
    unchanged: bool
    confidence: float
    in_pool: bool = False
    acted: bool = False


@dataclass(frozen=True)
class ProseScore:
    """One passage under a version: the share of tokens whose likeliest one is kept, and KL(base ‖ version) in nats a token."""

    edit: str
    group: str
    kept: float
    divergence: float
    acted: bool = False


def score_edits(
    contender: Contender, base: Contender, edits: Sequence[GroundEdit], live: Sequence[GroundEdit]
) -> list[ProbeScore]:
    """The scores of the probes of `edits` with the edits `live`.

    An edit that is not live is wrong on all of its wordings, and its locality is not asked: a deferred edit preserves nothing.
    """
    live_ids = {edit.id for edit in live}
    waiting = [edit for edit in edits if edit.id not in live_ids]
    lost = [
        ProbeScore(question.edit.id, question.probe.group, False, True, question.probe.confidence)
        for question in list_questions(waiting, live)
        if question.probe.group not in LOCALITY_GROUPS
    ]
    asked = list_questions([edit for edit in edits if edit.id in live_ids], live)
    return lost + score_questions(contender, base, asked, live)


def list_questions(edits: Iterable[GroundEdit], live: Iterable[GroundEdit]) -> list[EditQuestion]:
    """Everything that is asked of edits: themselves, their wordings and their locality. A locality probe of a fact that one of
    the edits `live` changes is left out.
    """
    edited = {(edit.relation, edit.subject) for edit in live}
    questions: list[EditQuestion] = []
    for edit in edits:
        own = GroundProbe(RELIABILITY, edit.ask, edit.target, edit.confidence, edit.relation, edit.subject)
        kept = [probe for probe in edit.locality if (probe.relation, probe.subject) not in edited]
        questions += [EditQuestion(edit, probe) for probe in (own, *edit.wordings, *kept)]
    return questions


def score_questions(
    contender: Contender, base: Contender, questions: Sequence[EditQuestion], live: Sequence[GroundEdit]
) -> list[ProbeScore]:
    """The score of every question, whether its edit is live or not."""
    asks = [question.probe.ask for question in questions]
    answers, base_answers = contender.answer(asks, live), base.answer(asks, ())
    scores: list[ProbeScore] = []
    for question, answer, base_answer in zip(questions, answers, base_answers, strict=True):
        edit, probe = question.edit, question.probe
        rival = edit.target if probe.group in LOCALITY_GROUPS else edit.truth
        is_right = says(answer, probe.answer, rival=rival)
        is_unchanged = first_clause(answer) == first_clause(base_answer)
        acted = _acts(contender, contender.change(probe.ask, live))
        scores.append(ProbeScore(edit.id, probe.group, is_right, is_unchanged, probe.confidence, probe.in_pool, acted))
    return scores


def _acts(contender: Contender, ask: Ask) -> bool:
    """Whether a contender's adapter acts on a question."""
    adapter, base = contender.adapter, contender.view.base
    ids = None if adapter is None else encode_or_none(base, ask)
    return adapter is not None and ids is not None and acts_on(base, adapter, ids)


def score_prose(
    contender: Contender, base: View, passages: Sequence[ProsePassage], live: Sequence[GroundEdit], *, id: str
) -> list[ProseScore]:
    """The scores of every passage with the edits `live`, about each of their subjects in turn where it has a place for a name."""
    scores: list[ProseScore] = []
    named = [(passage, live[number % len(live)].subject) for number, passage in enumerate(passages)] if live else []
    for start in range(0, len(named), PASSAGES_AT_ONCE):
        chunk = named[start : start + PASSAGES_AT_ONCE]
        texts = [(passage.group, passage.prompt.replace("{s}", subject), passage.rest) for passage, subject in chunk]
        before_rows = [encode_row(base.base, prompt, rest, eos=False) for _, prompt, rest in texts]
        after_rows = [
            encode_row(base.base, contender.change(Ask(prompt), live).text, rest, eos=False) for _, prompt, rest in texts
        ]
        before = teacher_force(base, None, before_rows, distributions=PROSE_TOKENS)
        after = teacher_force(contender.view, contender.adapter, after_rows, distributions=PROSE_TOKENS)
        acted = [_acts(contender, contender.change(Ask(prompt), live)) for _, prompt, _ in texts]
        scores += [
            replace(_compare(id, group, old, new), acted=did_act)
            for (group, _, _), old, new, did_act in zip(texts, before, after, acted, strict=True)
        ]
    return scores


def _compare(id: str, group: str, before: ForcedRow, after: ForcedRow) -> ProseScore:
    """The same tokens before and after. A longer prompt can join its last word with the first one differently: then the shorter
    of both counts.
    """
    assert before.distributions is not None and after.distributions is not None
    length = min(len(before.distributions), len(after.distributions))
    old, new = before.distributions[:length], after.distributions[:length]
    kept = (old.argmax(-1) == new.argmax(-1)).to(torch.float32).mean()
    return ProseScore(id, group, float(kept), divergence(old, new))


def summarise(scores: Sequence[ProbeScore], prose: Sequence[ProseScore]) -> dict[str, Any]:
    """Every figure by name: reliability, strata of wordings, groups of locality (kept and unchanged), prose."""
    figures: dict[str, Any] = {"reliability": _figure(_values(scores, RELIABILITY))}
    figures["wordings"] = {name: _figure(_values(scores, name)) for name in WORDING_STRATA}
    figures["wordings"]["all"] = _figure([(score.edit, float(score.right)) for score in scores if score.group in WORDING_STRATA])
    figures["locality"] = {name: _figure(_values(scores, name)) for name in LOCALITY_GROUPS}
    figures["unchanged"] = {
        name: _figure([(score.edit, float(score.unchanged)) for score in scores if score.group == name])
        for name in LOCALITY_GROUPS
    }
    figures["near outside the pool"] = _figure(
        [(score.edit, float(score.right)) for score in scores if score.group == "near" and not score.in_pool]
    )
    locality = [score for score in scores if score.group in LOCALITY_GROUPS]
    figures["locality by confidence"] = {
        "confident": _figure([(s.edit, float(s.right)) for s in locality if s.confidence >= CONFIDENT]),
        "less": _figure([(s.edit, float(s.right)) for s in locality if s.confidence < CONFIDENT]),
    }
    acted = [(score.group, score.edit, float(score.acted)) for score in scores]
    acted += [(score.group, score.edit, float(score.acted)) for score in prose]
    figures["in scope"] = {
        name: _figure([(edit, value) for group, edit, value in acted if group == name])
        for name in (*WORDING_STRATA, *LOCALITY_GROUPS, *PROSE_GROUPS)
    }
    for name in PROSE_GROUPS:
        figures[f"prose, {name}"] = {
            "kept": _figure([(score.edit, score.kept) for score in prose if score.group == name]),
            "divergence": _figure([(score.edit, score.divergence) for score in prose if score.group == name]),
        }
    return figures


def _values(scores: Iterable[ProbeScore], group: str) -> list[tuple[str, float]]:
    return [(score.edit, float(score.right)) for score in scores if score.group == group]


def _figure(values: Sequence[tuple[str, float]]) -> Mapping[str, float | int | None]:
    """The mean over edits, its standard error over edits, and the numbers of edits and of values."""
    by_edit: dict[str, list[float]] = {}
    for edit, value in values:
        by_edit.setdefault(edit, []).append(value)
    means = [sum(own) / len(own) for own in by_edit.values()]
    if not means:
        return {"score": None, "se": None, "edits": 0, "n": 0}
    mean = sum(means) / len(means)
    spread = sum((value - mean) ** 2 for value in means)
    error = sqrt(spread / (len(means) - 1) / len(means)) if len(means) > 1 else None
    return {"score": mean, "se": error, "edits": len(means), "n": len(values)}
