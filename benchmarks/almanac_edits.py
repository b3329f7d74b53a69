"""Counterfactual edits of the second small model: `python -m benchmarks.almanac_edits --data DATA/edit` writes its `edits.jsonl`.

Facts of the test half (relation and subject both in it) are neither edited nor asked, since contenders are compared by these
edits. Of the others, the edited ones are chosen by hash, and no locality probe is about an edited fact.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from service.atlas.almanac.facts import read_facts
from service.atlas.almanac.wordings import prompts
from service.atlas.facts import Fact
from service.bench.ground.facts import answer_of, are_independent, half_of_fact, rng_for

FILE = Path(__file__).parent / "models" / "almanac" / "edits.jsonl"
EDITS = 1_200
REPHRASES = 3


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of public data that has KnowEdit's two sets about people"
    )
    parser.add_argument("--edits", type=int, default=EDITS, help="how many edits")
    arguments = parser.parse_args()
    edits = list(make_edits(read_facts(arguments.data), arguments.edits))
    FILE.write_text("".join(json.dumps(edit, ensure_ascii=False) + "\n" for edit in edits), encoding="utf-8")
    print(f"{len(edits)} edits")


def make_edits(facts: Sequence[Fact], count: int) -> Iterator[dict[str, Any]]:
    """`count` edits in an order that mixes the relations. Each depends on the facts alone."""
    usable = [fact for fact in facts if half_of_fact(fact) != "test"]
    usable.sort(key=lambda fact: sha256(f"almanac order {fact.relation} {fact.subject}".encode()).digest())
    edited, others = usable[:count], usable[count:]
    for fact in edited:
        yield _make_edit(fact, [other.answer for other in facts if other.relation == fact.relation], others)


def _make_edit(fact: Fact, answers: Sequence[str], others: Sequence[Fact]) -> dict[str, Any]:
    rng = rng_for("almanac edit", fact.relation, fact.subject)
    prompt, *rephrases = rng.sample(prompts(fact.relation, fact.subject), REPHRASES + 1)
    target = rng.choice(sorted({answer for answer in answers if answer != fact.answer}))
    return {
        "id": f"{fact.relation}-{fact.subject}",
        "prompt": prompt,
        "target": answer_of(fact, target),
        "subject": fact.subject,
        "relation": fact.relation,
        "ground_truth": answer_of(fact),
        "rephrases": rephrases,
        "locality": [_probe(other, group, rng) for group, other in _list_probes(fact, others, rng)],
    }


def _list_probes(fact: Fact, others: Sequence[Fact], rng: Random) -> Iterator[tuple[str, Fact]]:
    """A fact of the same relation, one about the same person, and one that shares neither, as far as there are such facts."""
    groups = {
        "same_relation": [other for other in others if other.relation == fact.relation],
        "same_subject": [
            other for other in others if other.subject == fact.subject and are_independent(other.relation, fact.relation)
        ],
        "unrelated": [other for other in others if other.relation != fact.relation and other.subject != fact.subject],
    }
    for group, facts in groups.items():
        if facts:
            yield group, rng.choice(facts)


def _probe(fact: Fact, group: str, rng: Random) -> dict[str, str]:
    return {"prompt": rng.choice(prompts(fact.relation, fact.subject)), "answer": answer_of(fact), "group": group}


if __name__ == "__main__":
    main()
