"""Neutral sentences that hold a name, with the subject of an edit in its place: text of any kind that names the subject."""

import hashlib
from collections.abc import Callable
from random import Random

from service.editors.known_names import split_at_name
from service.editors.neutral import NeutralSentences

Passage = tuple[str, str]  # its beginning, which names the subject, and the rest
_FEWEST_WORDS, _MOST_WORDS = 4, 8  # of the rest
_WORDS_BETWEEN = 3  # behind the name the beginning goes on for fewer words than that
_KEPT_PARTS = 2  # the sentences of the whole pool, and those of its first part


def passages_about(
    neutral: NeutralSentences, subject: str, count: int, *, is_left_out: Callable[[str], bool] = lambda text: False
) -> list[Passage]:
    """At most `count` passages about a subject, drawn by its name. A sentence for which `is_left_out` holds without its name is
    not drawn.
    """
    key = ("sentences with a name", len(neutral.sentences))
    parted = neutral.get_or_make(key, lambda: _part(neutral), keep=_KEPT_PARTS)
    random = Random(hashlib.sha256(f"passages about {subject}".encode()).digest())
    passages: list[Passage] = []
    for index in random.sample(range(len(parted)), len(parted)):
        if len(passages) == count:
            break
        before, after = parted[index]
        between = random.randrange(_WORDS_BETWEEN)
        words = after.split(" ")
        rest = words[between : between + _MOST_WORDS]
        if len(rest) >= _FEWEST_WORDS and not is_left_out(before + after):
            passages.append((" ".join([f"{before}{subject}", *words[:between]]), " ".join(rest)))
    return passages


def _part(neutral: NeutralSentences) -> list[tuple[str, str]]:
    """What stands before and behind a name in each sentence that has one within its text."""
    parted = (split_at_name(sentence.text) for sentence in neutral.sentences)
    return [(before, after[1:]) for before, after in filter(None, parted) if after.startswith(" ")]
