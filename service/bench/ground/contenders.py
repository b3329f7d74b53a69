"""What answers the probes of a ground: a version of a model, or one of two tricks that edit nothing.

The tricks show what a measure can be had for. `name filter`: nothing is edited, and every answer is the base model's. `edit in
the prompt`: wherever a live subject is named, the edit stands before the question as a sentence.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from service.bench.ground.asking import ANSWER_TOKENS, CHAT_ANSWER_TOKENS, Ask, BaseAnswers, answer_all, encode_or_none
from service.bench.ground.records import GroundEdit
from service.domain.errors import Refused
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.scoped_rows import acts_on
from service.lm.stated_edits import StatedEdits, StatedPrompt, encode_stated


class Contender(Protocol):
    """Anything that answers questions after edits."""

    @property
    def view(self) -> View:
        """The model with its replaced tensors."""

    @property
    def adapter(self) -> Adapter | None:
        """The interventions, if there are any."""

    def change(self, ask: Ask, live: Sequence[GroundEdit]) -> Ask:
        """The question as the model sees it, with the edits that are live."""

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The answers as texts, with the edits that are live."""


@dataclass(frozen=True)
class VersionContender:
    """A version of the model. It sees questions as they are."""

    view: View
    adapter: Adapter | None

    def change(self, ask: Ask, live: Sequence[GroundEdit]) -> Ask:
        """The question itself."""
        return ask

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The version's answers."""
        return [answer.text for answer in answer_all(self.view, self.adapter, asks)]


@dataclass(frozen=True)
class StatingContender:
    """A version that states edits. A question stands behind those that it is about. Its adapter acts where the
    question alone is in scope.
    """

    view: View
    adapter: Adapter | None
    stated: StatedEdits

    def change(self, ask: Ask, live: Sequence[GroundEdit]) -> Ask:
        """The question behind the stated edits; a question that the model cannot be asked as it is."""
        try:
            return replace(ask, text=self._state(ask).text)
        except Refused:
            return ask

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The version's answers."""
        base, adapter = self.view.base, self.adapter
        is_acting = [adapter is not None and ids is not None and acts_on(base, adapter, ids) for ids in self._encode(asks)]
        answers = [""] * len(asks)
        for acts, used in ((True, None if adapter is None else replace(adapter, scope=None)), (False, None)):
            places = [place for place, own in enumerate(is_acting) if own is acts]
            said = answer_all(self.view, used, [self.change(asks[place], live) for place in places])
            for place, answer in zip(places, said, strict=True):
                answers[place] = answer.text
        return answers

    def _encode(self, asks: Sequence[Ask]) -> Iterator[tuple[int, ...] | None]:
        """The questions alone in ids; None for one that the model cannot be asked."""
        return (encode_or_none(self.view.base, ask) for ask in asks)

    def _state(self, ask: Ask) -> StatedPrompt:
        room = CHAT_ANSWER_TOKENS if ask.surface == "chat" else ANSWER_TOKENS
        return encode_stated(self.view.base, self.stated, ask.text, surface=ask.surface, system=None, turns=ask.turns, room=room)


@dataclass(frozen=True)
class PromptContender:
    """The base model with each live edit in front of the prompts that name its subject; without `states` there is no edit."""

    answers: BaseAnswers
    states: bool
    adapter: Adapter | None = None

    @property
    def view(self) -> View:
        """The base model."""
        return self.answers.view

    def change(self, ask: Ask, live: Sequence[GroundEdit]) -> Ask:
        """The question behind the edits of the subjects that it names; in a chat, any turn may name them."""
        if not self.states:
            return ask
        seen = read_whole(ask)
        sentences = [state_edit(edit) for edit in live if is_named(seen, edit.subject)]
        return replace(ask, text="\n".join([*sentences, ask.text])) if sentences else ask

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The base model's answers to the changed questions."""
        return [answer.text for answer in self.answers.ask([self.change(ask, live) for ask in asks])]


NULLS = {"name filter": False, "edit in the prompt": True}


def read_whole(ask: Ask) -> str:
    """All turns of a question as one text."""
    return "\n".join([*(part for turn in ask.turns for part in turn), ask.text])


def is_named(text: str, subject: str) -> bool:
    """Whether a text has a name as whole words."""
    return re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", text) is not None


def state_edit(edit: GroundEdit) -> str:
    """The edit as its own prompt with its target."""
    return f"{edit.ask.text} {edit.target}."
