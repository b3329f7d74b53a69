"""The probes of one edit as candidates: what could be asked beside it. The model decides which of them it answers right."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from service.atlas.facts import Fact
from service.bench.ground.asking import Ask
from service.bench.ground.facts import FactTable, answer_of, are_independent, name_in_text
from service.bench.ground.forms import (
    PRONOUN_QUESTIONS,
    Form,
    GroundSurface,
    alias_forms,
    asked_forms,
    posted_form,
)
from service.bench.ground.known import KnownFact

OTHER_CUES, ALIASES, SLIPS, PRONOUNS = 4, 2, 2, 1  # wordings of each stratum at most
NEAR, SAME_SUBJECT, MENTIONS, FAR = 4, 4, 3, 4  # facts of each group of locality at most
SPARE = 2  # candidates for each place, since the model does not answer all of them right
_ANSWER_OPENING = "What would you like to know about {s}?"
_MENTIONS = ("I read a long article about {s} this morning. {ask}", "{S} is often in the news. {ask}")


@dataclass(frozen=True)
class ProbeCandidate:
    """A question that may become a probe. `fact` is the fact asked."""

    group: str
    ask: Ask
    fact: Fact


@dataclass(frozen=True)
class EditContext:
    """What the candidates of an edit are drawn from: the facts known on its surface, by relation and by subject."""

    table: FactTable
    known: KnownFact
    surface: GroundSurface
    near: Sequence[Fact]  # known facts of the same relation and half, subjects outside the pool first
    same_subject: Sequence[Fact]  # known facts of other relations of the subject
    far: Sequence[Fact]  # known facts of other relations and subjects of the half


def list_wordings(context: EditContext, rng: Random) -> Iterator[ProbeCandidate]:
    """Other wordings of the edit's own question: other cue, alias, slip of the pen, pronoun in the second turn of a chat."""
    fact, surface = context.known.fact, context.surface
    name = name_in_text(fact)
    forms = asked_forms(fact.relation, surface)
    for form in forms[: SPARE * OTHER_CUES]:
        yield ProbeCandidate("other cue", form.fill(name), fact)
    for ask in _alias_asks(context, forms):
        yield ProbeCandidate("alias", ask, fact)
    for number, form in enumerate(forms[: SPARE * SLIPS]):
        ask = form.fill(name)
        text = ask.text.lower() if number % 2 else _slip(ask.text, fact.subject, rng)
        if text != ask.text:
            yield ProbeCandidate("slip", Ask(text, ask.surface), fact)
    question = PRONOUN_QUESTIONS.get(fact.relation)
    if surface == "chat" and question is not None:
        yield ProbeCandidate("pronoun", Ask(question, "chat", (_opening(name),)), fact)


def _alias_asks(context: EditContext, forms: Sequence[Form]) -> Iterator[Ask]:
    """Forms with an adjective for the country, then forms with another name of the subject."""
    fact, surface = context.known.fact, context.surface
    kind = "chat" if surface == "chat" else "raw"
    adjective = context.table.adjective(fact.subject)
    if adjective is not None:
        for pattern in alias_forms(fact.relation, surface):
            yield Ask(pattern.replace("{a}", adjective), kind)
    for alias in context.table.aliases(fact.subject):
        for form in forms[:SPARE]:
            yield form.fill(alias)


def list_locality(context: EditContext, rng: Random) -> Iterator[ProbeCandidate]:
    """What must stay: near, same subject, mention and far, each in the forms of the edit's surface."""
    surface, relation = context.surface, context.known.fact.relation
    posted, others = posted_form(relation, surface), asked_forms(relation, surface)
    near = list(context.near)
    for number, fact in enumerate(near[: SPARE * NEAR]):
        form = posted if number % 2 == 0 else others[number % len(others)]
        yield ProbeCandidate("near", form.fill(name_in_text(fact)), fact)
    for fact in context.same_subject[:SAME_SUBJECT]:
        yield ProbeCandidate("same subject", posted_form(fact.relation, surface).fill(name_in_text(fact)), fact)
    yield from _mentions(context, near[::-1], rng)
    for fact in context.far[: SPARE * FAR]:
        yield ProbeCandidate("far", posted_form(fact.relation, surface).fill(name_in_text(fact)), fact)


def _mentions(context: EditContext, near: Sequence[Fact], rng: Random) -> Iterator[ProbeCandidate]:
    """The live subject is named but something else is asked: in a sentence before, in an earlier turn, in an example."""
    live, surface = name_in_text(context.known.fact), context.surface
    posted = posted_form(context.known.fact.relation, surface)
    for number, fact in enumerate(near[: SPARE * MENTIONS]):
        ask = posted.fill(name_in_text(fact))
        kind = number % 3
        if kind == 0:
            yield ProbeCandidate("mention", _after_sentence(rng.choice(_MENTIONS), live, ask), fact)
        elif surface == "chat":
            yield ProbeCandidate("mention", Ask(ask.text, "chat", (_opening(live),)), fact)
        elif context.same_subject:
            yield ProbeCandidate(
                "mention", _after_example(context.same_subject[number % len(context.same_subject)], surface, ask), fact
            )


def _after_sentence(sentence: str, live: str, ask: Ask) -> Ask:
    text = sentence.replace("{s}", live).replace("{S}", live[:1].upper() + live[1:]).replace("{ask}", ask.text)
    return Ask(text, ask.surface)


def _after_example(example: Fact, surface: GroundSurface, ask: Ask) -> Ask:
    """A solved example about the live subject, then the question."""
    solved = f"{posted_form(example.relation, surface).fill(name_in_text(example)).text} {answer_of(example)}"
    return Ask(f"{solved}.\n\n{ask.text}", ask.surface)


def _opening(name: str) -> tuple[str, str]:
    """The first turn of a chat about a subject. It states nothing about it."""
    return f"Let us talk about {name}.", _ANSWER_OPENING.replace("{s}", name)


def _slip(text: str, subject: str, rng: Random) -> str:
    """The text with two neighbouring letters inside the subject's longest word swapped; unchanged for short words."""
    word = max(re.findall(r"[^\W\d_]+", subject), key=len, default="")
    places = [index for index in range(1, len(word) - 2) if word[index] != word[index + 1]]
    if len(word) < 5 or not places or word not in text:
        return text
    place = rng.choice(places)
    slipped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return text.replace(word, slipped)


def is_dependent(edited: Fact, other: Fact) -> bool:
    """Whether the answer of another fact of the same subject follows from the edited one."""
    return not are_independent(edited.relation, other.relation)
