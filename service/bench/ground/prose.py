"""Passages of prose: half is text by people, half names the subject of a live edit.

BaFT acts on the last tokens of the prompt and on the output alone, so the first part of a passage is the prompt and the rest is
what follows.
"""

import json
from pathlib import Path

from service.bench.ground.records import ProsePassage

HUMAN, NAMED = "human text", "with names"
PASSAGES = 16  # of human text
_SHORTEST, _LONGEST = 120, 400  # characters of a passage
_FILE = "gsm8k.jsonl"

# Written for this project, so that there is prose without any folder of data. `{s}` is the name of a live subject.
_NAMED_PASSAGES = (
    ("On the table lay an old magazine with an article about {s}, and next to it",
     "a cup of cold coffee. Nobody had touched either of them since the morning."),
    ("My grandmother often spoke of {s} when we sat in the kitchen, and",
     "we children listened because her stories were better than the radio."),
    ("The quiz began with a question about {s}, which",
     "the team from the second floor answered before the host had finished reading."),
    ("After the lecture on {s} the students went outside and",
     "talked about where to have lunch, for it was already past one o'clock."),
    ("She wrote {s} on the first page of her notebook and then",
     "drew a line under it, as she did with every topic she wanted to come back to."),
    ("There was a short film about {s} that evening, but",
     "the rain was so loud on the roof that we hardly understood a word."),
    ("In the library the books on {s} stand on the top shelf, so",
     "you have to ask for a ladder or for somebody tall."),
    ("He had read everything about {s} that he could find, although",
     "his work at the bakery left him little time before the weekend."),
)  # fmt: skip
_PLAIN_PASSAGES = (
    ("The kitchen smelled of onions and fresh bread when", "the two brothers came home from the river with wet shoes."),
    ("It had snowed during the night, and the postman", "left his bicycle at the corner and walked the rest of the street."),
    ("Before you paint a wall you should wash it, let it dry", "for a day, and cover the floor with old newspapers."),
    ("The train was twenty minutes late, so the passengers", "stood on the platform and looked at the dark clouds."),
    ("Every Saturday the neighbours meet in the garden and", "share the vegetables that they cannot eat themselves."),
    ("A small dog ran across the square with a red glove, and", "behind it came a girl who laughed too much to catch it."),
    ("When the lamp went out, she felt along the shelf until", "her fingers found the matches behind the sugar."),
    ("The teacher asked the class to write about their holidays,", "and most of them wrote about the day it rained."),
)  # fmt: skip


def read_prose(data: Path | None) -> tuple[ProsePassage, ...]:
    """The passages of the ground: text by people from a folder of public data, else a few of this project's own."""
    human = _read_human(data) if data is not None else []
    plain = [ProsePassage(HUMAN, prompt, rest) for prompt, rest in _PLAIN_PASSAGES]
    return (*(human or plain), *(ProsePassage(NAMED, prompt, rest) for prompt, rest in _NAMED_PASSAGES))


def _read_human(data: Path) -> list[ProsePassage]:
    """Questions of GSM8K as passages, cut in the middle at a space. Empty if the folder has no such file."""
    path = data / _FILE
    if not path.is_file():
        return []
    passages: list[ProsePassage] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = " ".join(str(json.loads(line).get("question", "")).split())
            if _SHORTEST <= len(text) <= _LONGEST:
                cut = text.rfind(" ", 0, len(text) // 2)
                passages.append(ProsePassage(HUMAN, text[:cut], text[cut + 1 :]))
            if len(passages) == PASSAGES:
                break
    return passages
