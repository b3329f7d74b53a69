"""The facts that a model is asked: the committed table of the embedded model and, from a folder of data, those about people.

Each fact belongs to a half by its relation and its subject. A default is chosen on the development half and reported on the test
half, so facts whose relation and subject fall into different halves are no edits.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Literal

from service.atlas.almanac.facts import read_facts
from service.atlas.facts import Fact, all_facts
from service.atlas.templates import answer_in_text, in_text

Half = Literal["development", "test"]
SALT = "ground-15"
# Each of a pair follows from the other, so a question about one is no locality probe of an edit of the other.
_DEPENDENT = (
    {"atomic_number", "element_period"},
    {"official_language", "nationality"},
    {"birthplace", "citizenship"},
    {"death_place", "burial_place"},
    {"occupation", "field"},
    {"occupation", "position"},
    {"employer", "occupation"},
    {"occupation", "team"},
)
ALIASES = {
    "Cote d'Ivoire": ("Ivory Coast",),
    "Ivory Coast": ("Côte d'Ivoire",),
    "Czech Republic": ("Czechia",),
    "Germany": ("Deutschland", "the Federal Republic of Germany"),
    "Iran": ("Persia",),
    "Japan": ("Nippon",),
    "Myanmar": ("Burma",),
    "Netherlands": ("Holland",),
    "Russia": ("the Russian Federation",),
    "Spain": ("España",),
    "Switzerland": ("the Swiss Confederation",),
    "Thailand": ("Siam",),
    "United Arab Emirates": ("the UAE",),
    "United Kingdom": ("Britain", "the UK"),
    "United States": ("America", "the USA"),
}


@dataclass(frozen=True)
class FactTable:
    """All facts that a model may be asked, with other names of their subjects."""

    facts: tuple[Fact, ...]

    def by_subject(self, subject: str) -> list[Fact]:
        """All facts about a subject."""
        return self._subjects.get(subject, [])

    def answers(self, relation: str) -> tuple[str, ...]:
        """The distinct answers of a relation, sorted: targets of counterfactual edits are drawn from them."""
        return tuple(sorted({fact.answer for fact in self.facts if fact.relation == relation}))

    def aliases(self, subject: str) -> tuple[str, ...]:
        """Other names of a subject."""
        return ALIASES.get(subject, ())

    def adjective(self, subject: str) -> str | None:
        """The adjective of a country, such as French, if the table has it."""
        return next((fact.answer for fact in self.by_subject(subject) if fact.relation == "nationality"), None)

    @property
    def _subjects(self) -> dict[str, list[Fact]]:
        return _group_by_subject(self.facts)


@cache
def _group_by_subject(facts: tuple[Fact, ...]) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.subject, []).append(fact)
    return groups


def read_table(data: Path | None) -> FactTable:
    """The committed facts, and those about people where a folder of KnowEdit's files is given.

    Raises FileNotFoundError if a file of the folder is missing.
    """
    return FactTable((*all_facts(), *(read_facts(data) if data is not None else ())))


def choose_facts(table: FactTable, most: int) -> list[Fact]:
    """At most `most` facts of each relation, drawn by hash, so that a question to a large model costs a bounded time.

    Subjects with several relations come first: the same subject is asked other things.
    """
    chosen: list[Fact] = []
    for relation in sorted({fact.relation for fact in table.facts}):
        facts = [fact for fact in table.facts if fact.relation == relation]
        facts.sort(key=lambda fact: sha256(f"{SALT} order {fact.relation} {fact.subject}".encode()).digest())
        chosen += facts[:most]
    return chosen


def name_in_text(fact: Fact) -> str:
    """The subject of a fact as it stands in running text."""
    return in_text(fact.subject)


def answer_of(fact: Fact, answer: str | None = None) -> str:
    """The answer of a fact, or another one of its relation, as it stands in running text."""
    return answer_in_text(fact.relation, answer or fact.answer)


def half_of(name: str) -> Half:
    """The half of a relation or a subject, by hash."""
    return "development" if sha256(f"{SALT}:{name}".encode()).digest()[0] % 2 == 0 else "test"


def half_of_fact(fact: Fact) -> Half | None:
    """The half of a fact, None where its relation and its subject fall into different halves."""
    half = half_of(fact.relation)
    return half if half == half_of(fact.subject) else None


def are_independent(left: str, right: str) -> bool:
    """Whether the answer of a relation says nothing about the answer of another one."""
    return not any({left, right} <= pair for pair in _DEPENDENT)


def rng_for(*parts: str) -> Random:
    """A generator of random draws that depends on names alone."""
    return Random(" ".join((SALT, *parts)))
