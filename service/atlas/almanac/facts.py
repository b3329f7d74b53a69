"""Reads facts about people from KnowEdit's WikiData_counterfact and WikiData_recent, whose locality probes state them.

A probe of another relation of the edited person, such as "The place of birth of X is", is a true fact. The prompts of all probes
follow a few patterns, so relation and subject are read off them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from service.atlas.facts import Fact

FILES = ("knowedit_wiki_counterfact.jsonl", "knowedit_wiki_recent.jsonl")
PEOPLE = 300

_PATTERNS = {
    "The gender of {s} is": "gender",
    "The name of the alma mater of {s} is": "alma_mater",
    "The name of the award {s} won is": "award",
    "The name of the country of citizenship of {s} is": "citizenship",
    "The name of the employer of {s} is": "employer",
    "The name of the father of {s} is": "father",
    "The name of the field of work of {s} is": "field",
    "The name of the mother of {s} is": "mother",
    "The name of the position held by {s} is": "position",
    "The name of the religion which {s} is associated with is": "religion",
    "The name of the sports team which {s} is a member of is": "team",
    "The name of the spouse of {s} is": "spouse",
    "The occupation of {s} is": "occupation",
    "The place of birth of {s} is": "birthplace",
    "The place of burial of {s} is": "burial_place",
    "The place of death of {s} is": "death_place",
}
_LONGEST_SUBJECT = 36
_LONGEST_ANSWER = 40
_LAST_LATIN = 0x24F  # the end of the block Latin Extended-B


def _is_usable(text: object, longest: int) -> bool:
    return isinstance(text, str) and 0 < len(text) < longest and all(ord(char) <= _LAST_LATIN for char in text)


def _statements(row: dict[str, object]) -> Iterator[tuple[object, object]]:
    """The prompts of a row that are followed by a true answer."""
    yield row.get("prompt"), row.get("ground_truth")
    probes = row.get("locality")
    for probe in probes if isinstance(probes, list) else []:
        yield probe.get("prompt"), probe.get("answer")


def _facts_of(row: dict[str, object]) -> Iterator[Fact]:
    subject = row.get("subject")
    if not isinstance(subject, str) or not _is_usable(subject, _LONGEST_SUBJECT):
        return
    for prompt, answer in _statements(row):
        relation = _PATTERNS.get(prompt.replace(subject, "{s}")) if isinstance(prompt, str) else None
        if relation is not None and isinstance(answer, str) and _is_usable(answer, _LONGEST_ANSWER):
            yield Fact(relation, subject, answer.strip())


def read_facts(folder: Path, people: int = PEOPLE) -> tuple[Fact, ...]:
    """The facts about the people of whom most relations are known, sorted; one answer a (subject, relation), the first one read.

    Raises FileNotFoundError if a file of `FILES` is not in the folder.
    """
    by_person: dict[str, dict[str, Fact]] = {}
    for name in FILES:
        with (folder / name).open(encoding="utf-8") as lines:
            for line in lines:
                for fact in _facts_of(json.loads(line)):
                    by_person.setdefault(fact.subject, {}).setdefault(fact.relation, fact)
    chosen = sorted(by_person, key=lambda subject: (-len(by_person[subject]), subject))[:people]
    return tuple(sorted(fact for subject in chosen for fact in by_person[subject].values()))
