"""The table of facts: one row a fact, one answer a (subject, relation). Knows no wording and no model."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("facts.tsv")


@dataclass(frozen=True, order=True)
class Fact:
    """One true statement. `subject` and `answer` are written as in running text, without an article."""

    relation: str
    subject: str
    answer: str


@cache
def all_facts() -> tuple[Fact, ...]:
    """Every fact of the committed table, in the table's order (by relation, then subject)."""
    with TABLE.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return tuple(Fact(row["relation"], row["subject"], row["answer"]) for row in rows)


@cache
def relations() -> tuple[str, ...]:
    """The names of the relations, sorted."""
    return tuple(sorted({fact.relation for fact in all_facts()}))


@cache
def answers(relation: str) -> tuple[str, ...]:
    """The distinct answers of a relation, sorted: where a counterfactual target is drawn from."""
    return tuple(sorted({fact.answer for fact in all_facts() if fact.relation == relation}))
