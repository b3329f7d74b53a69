"""Small skills beside the facts, for measuring capability. An item is a prompt and its answer.

About a tenth of all items, chosen by hash, is held out of the training text. The share of held-out items that are answered
exactly is the model's capability.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from random import Random

CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
HELD_OUT_PER_SKILL = 60
_ONE_IN = 10  # share of the items that is held out


@dataclass(frozen=True, order=True)
class SkillItem:
    """One question of one skill."""

    skill: str
    prompt: str
    answer: str


def _letters(rng: Random, low: int, high: int) -> list[str]:
    """Different letters, so that "the last" or "backwards" has one meaning."""
    return rng.sample(LETTERS, rng.randint(low, high))


def _copying(rng: Random) -> SkillItem:
    letters = " ".join(_letters(rng, 2, 4))
    return SkillItem("copying", f"Say it again: {letters}, again", letters)


def _reversing(rng: Random) -> SkillItem:
    letters = _letters(rng, 2, 3)
    return SkillItem("reversing", f"Backwards, {' '.join(letters)} reads", " ".join(reversed(letters)))


def _sorting(rng: Random) -> SkillItem:
    digits = rng.sample("0123456789", rng.choice((2, 3)))
    return SkillItem("sorting", f"Sorted from low to high, {' '.join(digits)} becomes", " ".join(sorted(digits)))


def _largest(rng: Random) -> SkillItem:
    digits = rng.sample("0123456789", rng.choice((3, 4, 5)))
    return SkillItem("finding the largest", f"The largest of {' '.join(digits)} is", max(digits))


def _adding(rng: Random) -> SkillItem:
    left, right = rng.randint(0, 99), rng.randint(0, 9)
    return SkillItem("adding", f"{left} plus {right} equals", str(left + right))


def _spelling(rng: Random) -> SkillItem:
    """An invented word of two open syllables, so that its spelling cannot be known from elsewhere."""
    word = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(2))
    return SkillItem("spelling", f"Letter by letter, {word} is spelled", " ".join(word))


def _last_letter(rng: Random) -> SkillItem:
    letters = _letters(rng, 3, 6)
    return SkillItem("finding the last", f"The last letter of {' '.join(letters)} is", letters[-1])


def _counting(rng: Random) -> SkillItem:
    letters = _letters(rng, 1, 7)
    return SkillItem("counting", f"The number of letters in {' '.join(letters)} is", str(len(letters)))


def _parity(rng: Random) -> SkillItem:
    number = rng.randint(0, 999)
    return SkillItem("telling even from odd", f"Is {number} even or odd?", "odd" if number % 2 else "even")


_SKILLS: tuple[Callable[[Random], SkillItem], ...] = (
    _copying,
    _reversing,
    _sorting,
    _adding,
    _spelling,
    _last_letter,
    _largest,
    _counting,
    _parity,
)


def is_held_out(item: SkillItem) -> bool:
    """Whether the item is kept out of the training text. A function of its prompt alone."""
    return sha256(f"skill:{item.prompt}".encode()).digest()[0] * _ONE_IN < 256


def _draw(make: Callable[[Random], SkillItem], rng: Random, *, held_out: bool) -> SkillItem:
    while is_held_out(item := make(rng)) is not held_out:
        pass
    return item


def train_item(rng: Random) -> SkillItem:
    """One item for the training text; never a held-out one."""
    return _draw(rng.choice(_SKILLS), rng, held_out=False)


@cache
def held_out_items() -> tuple[SkillItem, ...]:
    """The fixed test items, the same number of each skill, all different."""
    rng = Random("atlas held-out items")
    all_items: list[SkillItem] = []
    for make in _SKILLS:
        items: dict[SkillItem, None] = {}
        while len(items) < HELD_OUT_PER_SKILL:
            items[_draw(make, rng, held_out=True)] = None
        all_items.extend(items)
    return tuple(all_items)
