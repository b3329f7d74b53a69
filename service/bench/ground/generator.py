"""Makes the ground of a model: asks what it knows, draws counterfactual edits, and keeps the probes that it answers right."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from service.atlas.facts import Fact
from service.bench.ground import probes
from service.bench.ground.asking import Ask, BaseAnswers, last_tokens, measure_confidence
from service.bench.ground.facts import FactTable, Half, answer_of, half_of, half_of_fact, rng_for
from service.bench.ground.forms import GROUND_SURFACES, GroundSurface, find_overlap
from service.bench.ground.judging import says
from service.bench.ground.known import KnownFact, Scan, scan, supported_surfaces
from service.bench.ground.probes import EditContext, ProbeCandidate
from service.bench.ground.records import CONFIDENT, Ground, GroundEdit, GroundProbe, ProsePassage
from service.editors.known_names import part_of
from service.lm.base import Base

HALVES: tuple[Half, ...] = ("development", "test")
FEWEST_WORDINGS = 4
FEWEST_NEAR = 2
CONTEXTS_AT_ONCE = 8
_STEM = 4  # letters
_MOST = {
    "other cue": probes.OTHER_CUES,
    "alias": probes.ALIASES,
    "slip": probes.SLIPS,
    "pronoun": probes.PRONOUNS,
    "near": probes.NEAR,
    "same subject": probes.SAME_SUBJECT,
    "mention": probes.MENTIONS,
    "far": probes.FAR,
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class GroundOptions:
    """The size of a ground."""

    surfaces: tuple[GroundSurface, ...] = GROUND_SURFACES  # those that the model has not are left out
    edits: int = 50  # of each surface and half


def build_ground(
    answers: BaseAnswers,
    table: FactTable,
    facts: Sequence[Fact],
    prose: Sequence[ProsePassage],
    pool_text: str,
    options: GroundOptions,
    say: Say = lambda _line: None,
) -> Ground:
    """The ground of the base model that answers. `pool_text` is everything that fits protect. Names in it, and names that fits or
    acceptance ask about, are no names for locality alone.

    The same model, facts and options give the same ground on one kind of machine.
    """
    overlap = find_overlap(tuple({fact.relation for fact in table.facts}))
    if overlap:
        raise ValueError(f"patterns are both posted and asked: {sorted(overlap)[:3]}")
    base = answers.view.base
    surfaces = [surface for surface in supported_surfaces(base) if surface in options.surfaces]
    scanned = scan(answers, facts, surfaces, say)
    names = _names_in(pool_text, facts)
    edits: list[GroundEdit] = []
    for surface, known in scanned.known.items():
        for half in HALVES:
            contexts = list(_contexts(table, known, surface, half, names))
            made = _make_edits(answers, contexts, half, names, options.edits)
            say(f"{surface}, {half} half: {len(made)} edits")
            edits += made
    return Ground(base.name, base.fingerprint, tuple(_known_rows(scanned)), tuple(edits), tuple(prose))


def _names_in(pool_text: str, facts: Sequence[Fact]) -> frozenset[str]:
    """The subjects that are named in the text, and those that fits or acceptance may ask about in place of an edit's subject."""
    text = _as_words(pool_text)
    return frozenset(fact.subject for fact in facts if part_of(fact.subject) != "free" or _as_words(fact.subject) in text)


def _as_words(text: str) -> str:
    """The words of a text in lower case, each between spaces, so that a name is found as whole words alone."""
    words = re.findall(r"\w+", text.casefold())
    return f" {' '.join(words)} "


def _contexts(
    table: FactTable, known: Sequence[KnownFact], surface: GroundSurface, half: Half, names: frozenset[str]
) -> Iterator[EditContext]:
    """The possible edits of a half, one relation after another in turn."""
    of_half = [item for item in known if half_of_fact(item.fact) == half]
    by_relation: dict[str, list[KnownFact]] = {}
    for item in sorted(of_half, key=lambda item: _hash(surface, item.fact)):
        by_relation.setdefault(item.fact.relation, []).append(item)
    longest = max(map(len, by_relation.values()), default=0)
    for index in range(longest):
        for relation in sorted(by_relation):
            if index < len(by_relation[relation]):
                yield _context(table, by_relation[relation][index], known, surface, half, names)


def _context(
    table: FactTable, item: KnownFact, known: Sequence[KnownFact], surface: GroundSurface, half: Half, names: frozenset[str]
) -> EditContext:
    edited = item.fact
    rng = rng_for("context", surface, edited.relation, edited.subject)
    others = [other.fact for other in known if other.fact.subject != edited.subject and half_of(other.fact.subject) == half]
    rng.shuffle(others)
    near = [fact for fact in others if fact.relation == edited.relation and fact.answer != edited.answer]
    near.sort(key=lambda fact: fact.subject in names)
    same = [other.fact for other in known if other.fact.subject == edited.subject and other.fact.relation != edited.relation]
    return EditContext(
        table=table,
        known=item,
        surface=surface,
        near=near,
        same_subject=[fact for fact in same if not probes.is_dependent(edited, fact)],
        far=[fact for fact in others if fact.relation != edited.relation and half_of(fact.relation) == half],
    )


def _make_edits(
    answers: BaseAnswers, contexts: Sequence[EditContext], half: Half, names: frozenset[str], count: int
) -> list[GroundEdit]:
    """Edits with enough probes that the model answers right, in the order of the contexts. A few contexts are asked at once,
    until there are enough edits.
    """
    edits: list[GroundEdit] = []
    for start in range(0, len(contexts), CONTEXTS_AT_ONCE):
        chunk = contexts[start : start + CONTEXTS_AT_ONCE]
        candidates = [_candidates(answers.view.base, context) for context in chunk]
        answers.ask([candidate.ask for wordings, locality in candidates for candidate in (*wordings, *locality)])
        for context, (wordings, locality) in zip(chunk, candidates, strict=True):
            edit = _make_edit(answers, context, half, names, len(edits), wordings, locality)
            if edit is not None:
                edits.append(edit)
            if len(edits) == count:
                return edits
    return edits


def _make_edit(
    answers: BaseAnswers,
    context: EditContext,
    half: Half,
    names: frozenset[str],
    number: int,
    wordings: Sequence[ProbeCandidate],
    locality: Sequence[ProbeCandidate],
) -> GroundEdit | None:
    """The edit with the probes that the model answers right, or None if these are too few."""
    target = draw_target(context.table, context.known)
    if target is None:
        return None
    untold = [candidate for candidate in wordings if not _has_stem(candidate.ask.text, target)]
    kept_wordings = [replace(probe, answer=target) for probe in _keep(answers, untold, names)]
    kept_locality = _keep(answers, locality, names)
    near = [probe for probe in kept_locality if probe.group == "near"]
    if len(kept_wordings) < FEWEST_WORDINGS or len(near) < FEWEST_NEAR:
        return None
    return _edit(context, half, target, number, kept_wordings, kept_locality)


def _edit(
    context: EditContext,
    half: Half,
    target: str,
    number: int,
    wordings: Sequence[GroundProbe],
    locality: Sequence[GroundProbe],
) -> GroundEdit:
    fact, surface = context.known.fact, context.surface
    return GroundEdit(
        id=f"{surface}-{half}-{number:03d}",
        half=half,
        surface=surface,
        relation=fact.relation,
        subject=fact.subject,
        ask=context.known.form.fill(probes.name_in_text(fact)),
        target=target,
        truth=answer_of(fact),
        confidence=context.known.confidence,
        names_subject=number % 2 == 0,
        wordings=tuple(wordings),
        locality=tuple(locality),
    )


def _candidates(base: Base, context: EditContext) -> tuple[list[ProbeCandidate], list[ProbeCandidate]]:
    """Wordings that end in other tokens than the edit does, and locality."""
    rng = rng_for("probes", context.surface, context.known.fact.relation, context.known.fact.subject)
    posted = context.known.form.fill(probes.name_in_text(context.known.fact))
    end = last_tokens(base, posted)
    wordings = [candidate for candidate in probes.list_wordings(context, rng) if last_tokens(base, candidate.ask) != end]
    return wordings, list(probes.list_locality(context, rng))


def _keep(answers: BaseAnswers, candidates: Sequence[ProbeCandidate], names: frozenset[str]) -> list[GroundProbe]:
    """The candidates that the model answers right, no more of each group than its number, and none twice."""
    kept: dict[Ask, ProbeCandidate] = {}
    texts = answers.ask([candidate.ask for candidate in candidates])
    for candidate, answer in zip(candidates, texts, strict=True):
        in_group = sum(other.group == candidate.group for other in kept.values())
        is_wanted = in_group < _MOST[candidate.group] and candidate.ask not in kept
        if is_wanted and says(answer.text, answer_of(candidate.fact)):
            kept[candidate.ask] = candidate
    confidences = measure_confidence(
        answers.view, [(answers.ask([ask])[0], answer_of(candidate.fact)) for ask, candidate in kept.items()]
    )
    return [
        GroundProbe(
            group=candidate.group,
            ask=ask,
            answer=answer_of(candidate.fact),
            confidence=confidence,
            relation=candidate.fact.relation,
            subject=candidate.fact.subject,
            in_pool=candidate.fact.subject in names,
        )
        for (ask, candidate), confidence in zip(kept.items(), confidences, strict=True)
    ]


def draw_target(table: FactTable, item: KnownFact) -> str | None:
    """Another answer of the relation, whose stem is neither that of the truth nor part of the edit's prompt."""
    fact = item.fact
    prompt = item.form.fill(probes.name_in_text(fact)).text
    rng = rng_for("target", fact.relation, fact.subject)
    possible = [
        answer_of(fact, answer)
        for answer in table.answers(fact.relation)
        if _stem(answer) != _stem(fact.answer) and not _has_stem(prompt, answer)
    ]
    return rng.choice(possible) if possible else None


def _stem(text: str) -> str:
    return text.casefold()[:_STEM]


def _has_stem(text: str, answer: str) -> bool:
    """Whether a word of the text begins like the answer. Short answers are compared as whole words."""
    words = re.findall(r"\w+", text.casefold())
    stem = _stem(answer)
    return any(word == stem if len(stem) < _STEM else word.startswith(stem) for word in words)


def _hash(surface: str, fact: Fact) -> bytes:
    return sha256(f"ground edit {surface} {fact.relation} {fact.subject}".encode()).digest()


def _known_rows(scanned: Scan) -> Iterator[dict[str, Any]]:
    """One row for each surface and relation: facts asked and known, how confident, and how many of each half."""
    for surface in GROUND_SURFACES:
        if surface not in scanned.known:
            continue
        for relation in sorted({fact.relation for fact in scanned.asked[surface]}):
            asked = [fact for fact in scanned.asked[surface] if fact.relation == relation]
            known = [item for item in scanned.known[surface] if item.fact.relation == relation]
            halves = [half_of_fact(item.fact) for item in known]
            yield {
                "surface": surface,
                "relation": relation,
                "asked": len(asked),
                "known": len(known),
                "confident": sum(item.confidence >= CONFIDENT for item in known),
                "confidence": sum(item.confidence for item in known) / len(known) if known else None,
                **{half: halves.count(half) for half in HALVES},
            }
