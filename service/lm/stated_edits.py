"""What a version states in front of a prompt: edits that its overlay does not carry, as quoted data that the prompt follows.

A prompt that is about no stated edit is encoded as without any. Statements are in nobody's name: in a chat they stand in the
user's turn, and never in the system prompt.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.edit import normalise
from service.domain.errors import TooLong
from service.lm.base import Base
from service.lm.prompts import encode_prompt
from service.lm.scope import Scope
from service.lm.scoped_rows import read_prompt

MOST_STATEMENTS = 4  # in front of one prompt, the newest
CONTEXT_SHARE = 4  # statements take one such part of the model's context at most
GAPS = {"raw": "\n", "chat": "\n\n"}  # between the statements and the prompt


@dataclass(frozen=True)
class StatedEdit:
    """An edit that is stated in front of the prompts in its `scope`, on its `surfaces`; on all of them if there are none."""

    edit_id: str
    statement: str
    scope: Scope
    surfaces: tuple[str, ...] = ()

    def is_about(self, text: str, surface: str) -> bool:
        """Whether a prompt, as `read_prompt` reads it, is about the edit."""
        return (not self.surfaces or surface in self.surfaces) and self.scope.covers(text)


@dataclass(frozen=True)
class StatedPrompt:
    """A prompt in ids, with the statements in front of it. `asked_ids` is the prompt alone: by it an adapter's scope decides."""

    ids: tuple[int, ...]
    asked_ids: tuple[int, ...]
    edit_ids: tuple[str, ...] = ()  # of the edits that are stated, in order of submission

    @property
    def context_tokens(self) -> int:
        """The number of tokens of the statements."""
        return len(self.ids) - len(self.asked_ids)


def make_statement(prompt: str, target: str) -> str:
    """An edit as one line of data. Both texts are quoted as JSON quotes them, so that neither can end its quotes."""
    quoted = (json.dumps(normalise(text), ensure_ascii=False) for text in (prompt, target))
    return "{}: {}".format(*quoted)


def encode_stated(
    base: Base,
    stated: Sequence[StatedEdit],
    prompt: str,
    *,
    surface: str,
    system: str | None,
    turns: Sequence[tuple[str, str]],
    room: int,
) -> StatedPrompt:
    """A prompt behind the stated edits that it is about: the newest, as many as leave `room` tokens in the model's context.

    Raises what `encode_prompt` raises for the prompt alone. No prompt is too long for its statements: they are left out.
    """
    asked = encode_prompt(base, prompt, surface=surface, system=system, turns=turns)
    text = read_prompt(base, asked) if stated else ""
    about = [each for each in stated if each.is_about(text, surface)][-MOST_STATEMENTS:]
    most = min(base.context_length - room, len(asked) + base.context_length // CONTEXT_SHARE)
    while about:
        before = "\n".join(each.statement for each in about)
        try:
            ids = encode_prompt(base, before + GAPS[surface] + prompt, surface=surface, system=system, turns=turns)
        except TooLong:
            ids = None
        if ids is not None and len(ids) <= most:
            return StatedPrompt(ids, asked, tuple(each.edit_id for each in about))
        about = about[1:]
    return StatedPrompt(asked, asked)
