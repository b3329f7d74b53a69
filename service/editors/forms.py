"""The forms in which a prompt is asked: as a question, as the beginning of an answer, or as both in a dialogue."""

import re
from typing import NamedTuple

_DIALOGUE = re.compile(r"(?:Question|Q):\s*+(?P<question>\S[^\n]*+)\n++(?:Answer|A):[ \t]*(?P<begun>[^\n]*)", re.IGNORECASE)


class PromptForm(NamedTuple):
    """The question of a prompt, and the answer that it begins; "" for what it has not."""

    question: str
    begun: str


def read_form(prompt: str) -> PromptForm:
    """The parts of a prompt."""
    dialogue = _DIALOGUE.fullmatch(prompt.strip())
    if dialogue:
        return PromptForm(dialogue["question"], dialogue["begun"].strip())
    return PromptForm(prompt, "") if prompt.rstrip().endswith("?") else PromptForm("", prompt)


def dress_question(question: str, like: str, surface: str) -> str:
    """A question as a prompt on a surface. Raw text asks it as the prompt `like` does if that is a question alone."""
    bare = surface == "chat" or (read_form(like).question == like)
    return question if bare else f"Question: {question}\nAnswer:"
