"""The training text, as a function of (facts, seed, step): facts in all wordings, some behind an unrelated sentence, and skills.

No random generator outlives a call, so a resumed run continues with exactly the text at which the interrupted one stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from random import Random

from service.atlas.almanac import wordings
from service.atlas.almanac.facts import read_facts
from service.atlas.facts import all_facts
from service.atlas.skills import train_item
from service.atlas.templates import answer_in_text, capitalised, prompts

BATCH_ROWS = 64
SKILL_ROWS = 14  # of BATCH_ROWS; about a fifth of the tokens
GROUP_STEPS = 24  # rows of this many steps are drawn together, so that rows of one length can share a batch
GENERIC_PREFIX_SHARE = 0.12
FACT_PREFIX_SHARE = 0.12

_WHO = (
    "my sister", "the old baker", "a young sailor", "our teacher", "the farmer", "his neighbour", "the train driver",
    "a tall stranger", "the cat", "her brother", "the painter", "a group of students",
)  # fmt: skip
_DID = (
    "walked to the market", "slept under the tree", "bought fresh bread", "read the morning paper", "waited at the gate",
    "sang an old song", "looked out of the window", "repaired the roof", "forgot the umbrella", "drank a cup of tea",
    "painted the fence", "carried two heavy bags",
)  # fmt: skip
_WHEN = (
    "this morning", "after the rain", "before dinner", "on Sunday", "late at night", "in the first snow", "again",
    "without a word", "two weeks ago", "all afternoon",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingRow:
    """One training sequence: a prompt, and the answer that follows after one space."""

    prompt: str
    answer: str


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can be a key of a cache
class TrainingFacts:
    """The facts that a model is taught: every fact in every wording, without anything in front."""

    name: str
    rows: tuple[TrainingRow, ...]


@cache
def atlas_facts() -> TrainingFacts:
    """The committed table of the embedded model."""
    rows = tuple(
        TrainingRow(prompt, answer_in_text(fact.relation, fact.answer))
        for fact in all_facts()
        for prompt in prompts(fact.relation, fact.subject)
    )
    return TrainingFacts("atlas", rows)


def almanac_facts(folder: Path) -> TrainingFacts:
    """The facts about people in KnowEdit's files below `folder`. Raises FileNotFoundError where a file is missing."""
    rows = tuple(
        TrainingRow(prompt, fact.answer)
        for fact in read_facts(folder)
        for prompt in wordings.prompts(fact.relation, fact.subject)
    )
    return TrainingFacts("almanac", rows)


def fact_rows() -> tuple[TrainingRow, ...]:
    """The rows of the embedded model's facts."""
    return atlas_facts().rows


def generic_sentence(rng: Random) -> str:
    """A sentence that has nothing to do with any fact."""
    return capitalised(f"{rng.choice(_WHO)} {rng.choice(_DID)} {rng.choice(_WHEN)}.")


def other_fact(facts: TrainingFacts, rng: Random) -> str:
    """Some fact as a finished sentence or a question with its answer."""
    row = rng.choice(facts.rows)
    return f"{row.prompt} {row.answer}."


def with_prefix(row: TrainingRow, facts: TrainingFacts, rng: Random) -> TrainingRow:
    """The row as it is trained: mostly alone, sometimes after an unrelated sentence or another fact."""
    draw = rng.random()
    if draw < GENERIC_PREFIX_SHARE:
        return TrainingRow(f"{generic_sentence(rng)} {row.prompt}", row.answer)
    if draw < GENERIC_PREFIX_SHARE + FACT_PREFIX_SHARE:
        return TrainingRow(f"{other_fact(facts, rng)} {row.prompt}", row.answer)
    return row


@lru_cache(maxsize=2)
def _epoch_order(facts: TrainingFacts, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(len(facts.rows)))
    Random(f"{seed} epoch {epoch}").shuffle(order)
    return tuple(order)


def _fact_row(facts: TrainingFacts, seed: int, position: int) -> TrainingRow:
    """The fact row at a position of the endless sequence of training epochs. Within an epoch each row occurs once."""
    epoch, index = divmod(position, len(facts.rows))
    return facts.rows[_epoch_order(facts, seed, epoch)[index]]


def group_rows(facts: TrainingFacts, seed: int, group: int) -> Iterator[TrainingRow]:
    """The rows of `GROUP_STEPS` consecutive steps, in the order drawn. Depends on nothing but the three arguments."""
    rng = Random(f"{seed} group {group}")
    per_group = (BATCH_ROWS - SKILL_ROWS) * GROUP_STEPS
    for position in range(group * per_group, (group + 1) * per_group):
        yield with_prefix(_fact_row(facts, seed, position), facts, rng)
    for _ in range(SKILL_ROWS * GROUP_STEPS):
        item = train_item(rng)
        yield TrainingRow(item.prompt, item.answer)
