"""What one model knows: the facts that it answers right in the surface asked, with its confidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.atlas.facts import Fact
from service.bench.ground.asking import Ask, BaseAnswers, measure_confidence
from service.bench.ground.facts import answer_of, name_in_text
from service.bench.ground.forms import GROUND_SURFACES, Form, GroundSurface, posted_form
from service.bench.ground.judging import says
from service.lm.base import Base

FIRST_ASKED = 16  # facts of a relation


@dataclass(frozen=True)
class KnownFact:
    """A fact that the model answers right in a form. `confidence`: the geometric mean of its answer's token probabilities."""

    fact: Fact
    form: Form
    confidence: float


@dataclass(frozen=True)
class Scan:
    """All facts that a model was asked, by surface, and those that it knows."""

    asked: dict[GroundSurface, tuple[Fact, ...]]
    known: dict[GroundSurface, tuple[KnownFact, ...]]


@dataclass(frozen=True)
class FormAsked:
    """A fact asked in one form."""

    fact: Fact
    form: Form

    @property
    def ask(self) -> Ask:
        return self.form.fill(name_in_text(self.fact))


def supported_surfaces(base: Base) -> tuple[GroundSurface, ...]:
    """The surfaces of the ground that a model has: chat needs a chat template."""
    return tuple(surface for surface in GROUND_SURFACES if surface != "chat" or "chat" in base.surfaces)


def scan(
    answers: BaseAnswers,
    facts: Sequence[Fact],
    surfaces: Sequence[GroundSurface],
    say: Callable[[str], None] = lambda _line: None,
) -> Scan:
    """Ask a model facts on each surface, in the form in which edits are posted.

    Of a relation of whose first few facts the model knows none, no more is asked.
    """
    asked: dict[GroundSurface, tuple[Fact, ...]] = {}
    known: dict[GroundSurface, tuple[KnownFact, ...]] = {}
    for surface in surfaces:
        first, rest = _split(facts)
        known_first = find_known(answers, _as_forms(first, surface))
        promising = {item.fact.relation for item in known_first}
        rest = [fact for fact in rest if fact.relation in promising]
        known[surface] = (*known_first, *find_known(answers, _as_forms(rest, surface)))
        asked[surface] = (*first, *rest)
        say(f"{surface}: {len(known[surface])} of {len(asked[surface])} facts known")
    return Scan(asked, known)


def _split(facts: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """The first few facts of each relation, and the others."""
    first: list[Fact] = []
    rest: list[Fact] = []
    for fact in facts:
        (first if sum(other.relation == fact.relation for other in first) < FIRST_ASKED else rest).append(fact)
    return first, rest


def _as_forms(facts: Sequence[Fact], surface: GroundSurface) -> list[FormAsked]:
    return [FormAsked(fact, posted_form(fact.relation, surface)) for fact in facts]


def find_known(answers: BaseAnswers, forms: Sequence[FormAsked]) -> list[KnownFact]:
    """Those of the facts that the model answers right in the form asked, in order."""
    texts = answers.ask([asked.ask for asked in forms])
    right = [(asked, answer) for asked, answer in zip(forms, texts, strict=True) if says(answer.text, answer_of(asked.fact))]
    confidences = measure_confidence(answers.view, [(answer, answer_of(asked.fact)) for asked, answer in right])
    return [KnownFact(asked.fact, asked.form, confidence) for (asked, _), confidence in zip(right, confidences, strict=True)]
