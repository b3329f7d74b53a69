"""RippleEdits: an edit as a sentence, and tests of what has to follow from it and what has to stay.

Its own evaluation asks a test only if the model passes the test's condition queries before the edit. Here every test query is
asked, and condition queries are counted as not read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.probes import EMPTY_ANSWER, EMPTY_PROMPT, build_aliases, drop_missing
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema
from service.evaluation.records import EvalProbe, Record

PORTABILITY = ("Logical_Generalization", "Compositionality_I", "Compositionality_II", "Subject_Aliasing")
LOCALITY = ("Relation_Specificity", "Relation_Specifity", "Forgetfulness")  # the second spelling is that of its README
ONE_OF_SEVERAL = "tests that one right query of several passes; each query is asked"

_VERB = re.compile(r" (?:is followed by|follows|is|are) ")  # the end of every phrase of a relation


@dataclass(frozen=True)
class _Query:
    """A test query: its probe, and the names of the entities that answer it by their identifiers."""

    probe: EvalProbe | None
    names: Mapping[str, str]


def _read(row: Fields, number: int) -> list[Record]:
    row.skip("example_type")
    edit = row.read_object("edit")
    edit.skip("subject_id")
    tests = {axis: _read_queries(row, axis) for axis in (*PORTABILITY, *LOCALITY)}
    names = {id: name for queries in tests.values() for query in queries for id, name in query.names.items()}
    fact, previous = _read_sentence(edit), _read_previous(edit)
    if fact is None:
        raise BadRow("edit.prompt is missing or empty")
    prompt, target = _split_fact(fact, names.get(edit.read_optional("target_id") or ""), previous)
    return [
        Record(
            id=f"ripple-edits-{number}",
            prompt=prompt,
            target=target,
            relation=edit.read_optional("relation"),
            ground_truth=previous[len(prompt) + 1 :] or None if previous and previous.startswith(f"{prompt} ") else None,
            locality=_list_probes(tests, LOCALITY),
            portability=_list_probes(tests, PORTABILITY),
        )
    ]


def _read_previous(edit: Fields) -> str | None:
    """The fact before the edit is `original_fact` in its files and `previous_fact` in its README. Recent facts have none."""
    return _read_sentence(edit.read_object("original_fact" if "original_fact" in edit else "previous_fact"))


def _read_queries(row: Fields, axis: str) -> list[_Query]:
    queries = []
    for test in row.read_objects(axis):
        of_test = [_read_query(query, axis) for query in test.read_objects("test_queries")]
        if test.read_optional("test_condition") == "OR" and len(of_test) > 1:
            row.note(axis, ONE_OF_SEVERAL)
        queries += of_test
    return queries


def _read_query(query: Fields, axis: str) -> _Query:
    prompt, answers = query.read_optional("prompt") or query.read_optional("phrase"), _read_answers(query)
    ids = query.read_texts("target_ids" if "second_hop_target_ids" not in query else "second_hop_target_ids")
    names = dict(zip(ids, (answer[0] for answer in answers), strict=True)) if len(ids) == len(answers) else {}
    query.skip("query_type", "subject_id", "relation", "second_relation", "target_ids", "phrase")
    if prompt is None or not answers:
        query.note("prompt", EMPTY_PROMPT if prompt is None else EMPTY_ANSWER)
        return _Query(None, names)
    return _Query(EvalProbe(prompt=prompt, answer=answers[0][0], group=axis, aliases=build_aliases(answers)), names)


def _read_answers(query: Fields) -> tuple[tuple[str, ...], ...]:
    """Every right answer with its spellings."""
    answers = ((answer.read_texts("value") + answer.read_texts("aliases")) for answer in query.read_objects("answers"))
    return tuple(answer for answer in answers if answer)


def _list_probes(tests: Mapping[str, list[_Query]], axes: tuple[str, ...]) -> tuple[EvalProbe, ...]:
    return drop_missing(*(query.probe for axis in axes for query in tests[axis]))


def _read_sentence(fact: Fields) -> str | None:
    fact.skip("subject_id", "relation", "target_id")
    sentence = fact.read_optional("prompt")
    return None if sentence is None else sentence.strip().removesuffix(".")


def _split_fact(fact: str, name: str | None, previous: str | None) -> tuple[str, str]:
    """Prompt and target of a sentence. The target is the name that the edit's entity has in a test; without one, what is behind
    the last verb that the sentence has in common with the previous fact. Raises BadRow."""
    if name is not None and fact.endswith(f" {name}"):
        return fact.removesuffix(f" {name}"), name
    verbs = list(_VERB.finditer(fact if previous is None else _common_start(fact, previous)))
    if not verbs or not fact[verbs[-1].end() :].strip():
        raise BadRow("edit.prompt cannot be divided into a prompt and a target")
    return fact[: verbs[-1].end() - 1], fact[verbs[-1].end() :]


def _common_start(one: str, other: str) -> str:
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


RIPPLE_EDITS = Schema("ripple_edits", lambda row: isinstance(row.get("edit"), dict), _read)
