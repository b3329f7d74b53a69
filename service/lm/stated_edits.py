"""What a version states in front of a prompt: edits that its overlay does not carry, as quoted data that the prompt follows.

A prompt that is about no stated edit is encoded as without any. Statements are in nobody's name: in a chat they stand in the
user's turn, and never in the system prompt.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from service.domain.edit import normalise
from service.domain.errors import TooLong
from service.lm.base import Base
from service.lm.prompts import encode_prompt
from service.lm.scope import KeyWords, Scope, split_words
from service.lm.scoped_rows import read_prompt

MOST_STATEMENTS = 4  # in front of one prompt, the newest
CONTEXT_SHARE = 4  # statements take one such part of the model's context at most
# Marks that turn the direction of text, and spaces of no width: they make a line read other than it is written.
_UNSHOWN = dict.fromkeys([0x061C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF])
GAPS = {"raw": "\n", "chat": "\n\n"}  # between the statements and the prompt


@dataclass(frozen=True)
class StatedEdit:
    """An edit that is stated in front of the prompts in its `scope`, on its `surfaces`; on all of them if there are none."""

    edit_id: str
    statement: str
    scope: Scope
    surfaces: tuple[str, ...] = ()
    prompt: str = ""  # as `normalise` gives it, in folded case

    def is_asked_in(self, text: str) -> bool:
        """Whether a text, normalised and in folded case, holds the edit's own prompt."""
        return bool(self.prompt) and self.prompt in text


@dataclass(frozen=True, eq=False)
class StatedEdits:
    """The edits that a version states, in order of submission. Found together: the cost of a prompt hardly grows with their
    number.
    """

    edits: tuple[StatedEdit, ...] = ()

    def find(self, text: str, surface: str) -> list[StatedEdit]:
        """The edits that a prompt is about, which is as `read_prompt` reads it; in order of submission."""
        places = {place for one in self._scope.find(text) for place in self._places[_key_of(one)]} if self.edits else set()
        found = [self.edits[place] for place in sorted(places)]
        return [edit for edit in found if not edit.surfaces or surface in edit.surfaces]

    @cached_property
    def _scope(self) -> Scope:
        """The scopes of all edits as one: a name that one edit asks about in a prompt is asked about for the others, too."""
        scopes = [edit.scope for edit in self.edits]
        names = {name for scope in scopes for name in scope.names}
        key_words = {_key_of(each): each for scope in scopes for each in scope.key_words}
        unspaced = scopes[0].unspaced
        own = {word for name in names for word in split_words(name, unspaced).folded}.union(
            *(each.weights for each in key_words.values())
        )
        return Scope(
            names=tuple(sorted(names)),
            key_words=tuple(key_words.values()),
            no_slips=tuple(sorted({word for scope in scopes for word in scope.no_slips} - own)),
            rivals=tuple(sorted({word for scope in scopes for word in scope.rivals} - own)),
            header=scopes[0].header,
            footer=next((scope.footer for scope in scopes if scope.footer), ""),
            unspaced=unspaced,
            asked=tuple(each for scope in scopes for each in scope.asked),
        )

    @cached_property
    def _places(self) -> Mapping[Hashable, Sequence[int]]:
        """The places of the edits by what tells them."""
        places: dict[Hashable, list[int]] = {}
        for place, edit in enumerate(self.edits):
            for key in (*edit.scope.names, *map(_key_of, edit.scope.key_words)):
                places.setdefault(key, []).append(place)
        return places


def _key_of(one: str | KeyWords) -> Hashable:
    return one if isinstance(one, str) else (one.name, one.share, tuple(one.weights.items()))


NOTHING_STATED = StatedEdits()


@dataclass(frozen=True)
class StatedPrompt:
    """A prompt in ids, with the statements in front of it, and the user's `text` with them. `asked_ids` is the prompt alone: it
    decides about an adapter's scope.
    """

    ids: tuple[int, ...]
    asked_ids: tuple[int, ...]
    text: str
    edit_ids: tuple[str, ...] = ()  # of the edits that are stated, in order of submission

    @property
    def context_tokens(self) -> int:
        """The number of tokens of the statements."""
        return len(self.ids) - len(self.asked_ids)


def _find_nearest(stated: StatedEdits, text: str, surface: str) -> list[StatedEdit]:
    """The edits that a prompt is about, the newest last, and behind these the ones whose own prompt it holds; the last few."""
    about, folded = stated.find(text, surface), normalise(text).casefold()
    return sorted(about, key=lambda edit: edit.is_asked_in(folded))[-MOST_STATEMENTS:]


def make_statement(prompt: str, target: str) -> str:
    """An edit as one line of data. Both texts are quoted as JSON quotes them, so that neither can end its quotes."""
    shown = (normalise(text).translate(_UNSHOWN) for text in (prompt, target))
    quoted = (json.dumps(text, ensure_ascii=False) for text in shown)
    return "{} is answered with {}.".format(*quoted)


def encode_stated(
    base: Base,
    stated: StatedEdits,
    prompt: str,
    *,
    surface: str,
    system: str | None,
    turns: Sequence[tuple[str, str]],
    room: int,
) -> StatedPrompt:
    """A prompt behind the stated edits that it is about: those whose own prompt it holds, and the newest others, as many as leave
    `room` tokens in the model's context.

    Raises what `encode_prompt` raises for the prompt alone. No prompt is too long for its statements: they are left out.
    """
    asked = encode_prompt(base, prompt, surface=surface, system=system, turns=turns)
    about = _find_nearest(stated, read_prompt(base, asked), surface) if stated.edits else []
    most = min(base.context_length - room, len(asked) + base.context_length // CONTEXT_SHARE)
    while about:
        text = "\n".join(each.statement for each in about) + GAPS[surface] + prompt
        try:
            ids = encode_prompt(base, text, surface=surface, system=system, turns=turns)
        except TooLong:
            ids = None
        if ids is not None and len(ids) <= most:
            return StatedPrompt(ids, asked, text, tuple(each.edit_id for each in about))
        about = about[1:]
    return StatedPrompt(asked, asked, prompt)
