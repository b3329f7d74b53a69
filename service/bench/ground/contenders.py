"""What answers the probes of a ground: a version of a model, or one of two tricks that edit nothing.

The tricks show what a measure can be had for. `name filter`: nothing is edited, and every answer is the base model's. `edit in
the prompt`: wherever a live subject is named, the edit stands before the question as a sentence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from service.bench.ground.asking import Ask, BaseAnswers, answer_all
from service.bench.ground.records import GroundEdit
from service.lm.intervention import Adapter
from service.lm.overlay import View


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
