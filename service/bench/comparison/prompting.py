"""Contenders that edit nothing: edits stand in front of the questions that the base model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.bench.comparison.nearest import NearestEdit
from service.bench.comparison.shared_prefix import SharedPrefix
from service.bench.ground.asking import ANSWER_TOKENS, CHAT_ANSWER_TOKENS, Ask, answer_all, encode_ask
from service.bench.ground.contenders import state_edit
from service.bench.ground.records import GroundEdit
from service.domain.errors import TooLong
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.tokenizing import decode_answer

RESERVED_SHARE, RESERVED_MOST = 4, 256  # of the context, for a question and its answer: a quarter, at most so many tokens


@dataclass
class NearestContender:
    """The base model with the nearest edit before each question."""

    view: View
    adapter: Adapter | None = None

    def change(self, ask: Ask, live: Sequence[GroundEdit]) -> Ask:
        """The question behind its nearest edit, if there is one."""
        return _behind(ask, NearestEdit(live).find(ask))

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The base model's answers to the changed questions."""
        nearest = NearestEdit(live)
        changed = [_behind(ask, nearest.find(ask)) for ask in asks]
        return [answer.text for answer in answer_all(self.view, None, changed)]


@dataclass
class AllEditsContender:
    """The base model with the edits before every question: all of them, or the newest that the context has room for.

    They stand where the prompt begins, so that all prompts begin alike.
    """

    view: View
    adapter: Adapter | None = None
    shared: SharedPrefix = field(init=False)

    def __post_init__(self) -> None:
        self.shared = SharedPrefix(self.view)

    def change(self, ask: Ask, live: Sequence[GroundEdit]) -> Ask:
        """The question behind the edits."""
        return _behind_all(ask, choose_fitting(self.view.base, ask.surface, live))

    def answer(self, asks: Sequence[Ask], live: Sequence[GroundEdit]) -> list[str]:
        """The base model's answers to the changed questions, which are all of one surface."""
        surface = asks[0].surface
        assert all(ask.surface == surface for ask in asks)
        stated = choose_fitting(self.view.base, surface, live)
        prompts = [encode_ask(self.view.base, _behind_all(ask, stated)) for ask in asks]
        written = self.shared.decode(prompts, CHAT_ANSWER_TOKENS if surface == "chat" else ANSWER_TOKENS)
        return [decode_answer(self.view.base, ids) for ids in written]


def choose_fitting(base: Base, surface: str, live: Sequence[GroundEdit]) -> Sequence[GroundEdit]:
    """The newest edits that leave room for a question and its answer in the model's context, in their order."""
    room = base.context_length - min(base.context_length // RESERVED_SHARE, RESERVED_MOST)
    fitting, too_many = 0, len(live) + 1
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if _count_tokens(base, _behind_all(Ask("?", surface), live[-middle:])) <= room:
            fitting = middle
        else:
            too_many = middle
    return live[len(live) - fitting :]


def _count_tokens(base: Base, ask: Ask) -> int:
    try:
        return len(encode_ask(base, ask))
    except TooLong:
        return base.context_length


def _behind_all(ask: Ask, stated: Sequence[GroundEdit]) -> Ask:
    """The question behind edits, which stand in the first turn of a chat."""
    before = "".join(f"{state_edit(edit)}\n" for edit in stated)
    if ask.turns:
        (first, answer), *others = ask.turns
        return replace(ask, turns=((before + first, answer), *others))
    return replace(ask, text=before + ask.text)


def _behind(ask: Ask, edit: GroundEdit | None) -> Ask:
    """The question behind one edit, in its own turn."""
    return ask if edit is None else replace(ask, text=f"{state_edit(edit)}\n{ask.text}")
