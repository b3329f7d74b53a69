"""Counterfactual edits for the embedded model: `python -m service.atlas.benchmark` writes `edits.jsonl`.

A quarter of the facts, chosen by hash, is edited. No locality probe is about a fact of that quarter, so no edit changes the right
answer of another edit's probe. The file has the edits whose every prompt the shipped model answers with the truth. The model
cannot reason from one fact to another, so there are no portability probes.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from service.atlas import weights_path
from service.atlas.facts import Fact, all_facts, answers
from service.atlas.pool_and_probe import fact_is_pool
from service.atlas.templates import answer_in_text, prompts
from service.atlas.training.corpus import TrainingRow, generic_sentence
from service.atlas.training.measure import exact_matches

FILE = Path(__file__).with_name("edits.jsonl")
PLAIN_REPHRASES = 3  # one more rephrase follows an unrelated sentence
PROBES_PER_GROUP = 2

_NOT_PLAIN = re.compile(r"[^a-z0-9]+")

# Each of a pair follows from the other, so a probe about one is no locality probe of an edit of the other.
_DEPENDENT = ({"atomic_number", "element_period"}, {"official_language", "nationality"})


@dataclass(frozen=True)
class BenchmarkProbe:
    """A prompt that must change with the edit (a rephrase). Probes of a benchmark are never open to training."""

    prompt: str
    answer: str
    train: bool = False


@dataclass(frozen=True)
class LocalityProbe(BenchmarkProbe):
    """A prompt that must keep its answer; `pool` says whether neutral prompts about its fact are allowed."""

    group: str = ""
    pool: bool = False


@dataclass(frozen=True)
class BenchmarkEdit:
    """One record, in the order of the file's keys."""

    id: str
    prompt: str
    target: str
    subject: str
    relation: str
    ground_truth: str
    rephrases: tuple[BenchmarkProbe, ...]
    locality: tuple[LocalityProbe, ...]
    portability: tuple[BenchmarkProbe, ...] = ()


def is_edited(fact: Fact) -> bool:
    """Whether the fact belongs to the quarter that the benchmark edits."""
    return sha256(f"edit:{fact.relation}:{fact.subject}".encode()).digest()[0] % 4 == 0


def edited_facts() -> list[Fact]:
    """The edited quarter, in an order that mixes the relations."""
    facts = [fact for fact in all_facts() if is_edited(fact)]
    return sorted(facts, key=lambda fact: sha256(f"order:{fact.relation}:{fact.subject}".encode()).digest())


@cache
def _unedited_facts(pool: bool | None = None, relation: str | None = None) -> tuple[Fact, ...]:
    """Facts that no edit changes, of one half (None: both) and one relation (None: all)."""
    return tuple(
        fact
        for fact in all_facts()
        if not is_edited(fact)
        and (pool is None or fact_is_pool(fact.relation, fact.subject) is pool)
        and (relation is None or fact.relation == relation)
    )


def _independent(left: str, right: str) -> bool:
    return not any({left, right} <= pair for pair in _DEPENDENT)


def _probe(fact: Fact, group: str, rng: Random) -> LocalityProbe:
    prompt = rng.choice(prompts(fact.relation, fact.subject))
    answer = answer_in_text(fact.relation, fact.answer)
    return LocalityProbe(prompt, answer, group=group, pool=fact_is_pool(fact.relation, fact.subject))


def _same_relation(fact: Fact, rng: Random) -> list[Fact]:
    """Facts of other subjects: one of each half where the relation has both halves, else two."""
    halves = [_unedited_facts(pool, fact.relation) for pool in (True, False)]
    if all(halves):
        return [rng.choice(half) for half in halves]
    return rng.sample(halves[0] or halves[1], PROBES_PER_GROUP)


def _same_subject(fact: Fact, rng: Random) -> list[Fact]:
    """Facts of other relations of the same subject; none for a subject with one relation."""
    others = [
        other for other in _unedited_facts() if other.subject == fact.subject and _independent(other.relation, fact.relation)
    ]
    return rng.sample(others, min(PROBES_PER_GROUP, len(others)))


def _unrelated(fact: Fact, rng: Random) -> list[Fact]:
    """Facts of another subject and another relation, one of each half."""
    halves = [
        [other for other in _unedited_facts(pool) if other.relation != fact.relation and other.subject != fact.subject]
        for pool in (True, False)
    ]
    return [rng.choice(half) for half in halves]


def _locality(fact: Fact, rng: Random) -> tuple[LocalityProbe, ...]:
    groups = {"same_relation": _same_relation, "same_subject": _same_subject, "unrelated": _unrelated}
    return tuple(_probe(other, group, rng) for group, draw in groups.items() for other in draw(fact, rng))


def make_edit(fact: Fact) -> BenchmarkEdit:
    """The edit of one fact. Depends on the fact and the table only."""
    rng = Random(f"atlas edit {fact.relation} {fact.subject}")
    target = rng.choice([other for other in answers(fact.relation) if other != fact.answer])
    prompt, *others = rng.sample(prompts(fact.relation, fact.subject), PLAIN_REPHRASES + 2)
    others[-1] = f"{generic_sentence(rng)} {others[-1]}"
    return BenchmarkEdit(
        id=f"{fact.relation}-{_NOT_PLAIN.sub('-', fact.subject.lower())}",
        prompt=prompt,
        target=answer_in_text(fact.relation, target),
        subject=fact.subject,
        relation=fact.relation,
        ground_truth=answer_in_text(fact.relation, fact.answer),
        rephrases=tuple(BenchmarkProbe(other, answer_in_text(fact.relation, target)) for other in others),
        locality=_locality(fact, rng),
    )


def list_rows(edit: BenchmarkEdit) -> list[TrainingRow]:
    """All prompts of an edit with their true answers. The base model must know all of them, or the edit is left out."""
    own = [edit.prompt, *(probe.prompt for probe in edit.rephrases)]
    return [TrainingRow(prompt, edit.ground_truth) for prompt in own] + [
        TrainingRow(probe.prompt, probe.answer) for probe in edit.locality
    ]


def select_answerable(
    edits: Sequence[BenchmarkEdit], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Iterator[BenchmarkEdit]:
    """The edits whose every prompt the model answers with the truth."""
    matches = iter(exact_matches(model, tokenizer, [row for edit in edits for row in list_rows(edit)]))
    for edit in edits:
        results = [next(matches) for _ in list_rows(edit)]
        if all(results):
            yield edit


def main() -> None:
    """The command."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(weights_path())
    edits = list(select_answerable([make_edit(fact) for fact in edited_facts()], model, tokenizer))
    FILE.write_text("".join(json.dumps(asdict(edit)) + "\n" for edit in edits), encoding="utf-8")
    print(f"{len(edits)} of {len(edited_facts())} edits kept")


if __name__ == "__main__":
    main()
