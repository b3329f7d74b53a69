"""A question as a user sends it, a text on a surface with earlier turns of a chat; and a model's answers to many questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from service.domain.errors import Refused
from service.evaluation.metrics.teacher_forcing import teacher_force
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View
from service.lm.prompts import Row, encode_prompt, row_from_ids
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer

ANSWER_TOKENS = 12
CHAT_ANSWER_TOKENS = 20  # a chat model says whole sentences
ASKED_AT_ONCE = 32
SHARED_TOKENS = 3  # BaFT acts on the last three tokens of a prompt: a wording that ends in the same ones is no other wording


@dataclass(frozen=True)
class Ask:
    """One prompt. `turns` are earlier pairs of a user's text and the answer to it, on the surface chat alone."""

    text: str
    surface: str = "raw"
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ModelAnswer:
    """A greedy answer as text, and as ids behind those of its prompt. A prompt that the model cannot be asked has no row."""

    text: str
    row: Row | None = None


def encode_ask(base: Base, ask: Ask) -> tuple[int, ...]:
    """The ids of a prompt. Raises Refused if the model cannot be asked it."""
    return encode_prompt(base, ask.text, surface=ask.surface, turns=ask.turns)


def last_tokens(base: Base, ask: Ask) -> tuple[int, ...]:
    """The last tokens of the user's own text. On the surface chat the last tokens of the prompt are the template's."""
    return encode_prompt(base, ask.text, surface="raw")[-SHARED_TOKENS:]


def answer_all(view: View, adapter: Adapter | None, asks: Sequence[Ask]) -> list[ModelAnswer]:
    """The greedy answer to each prompt, in order. Prompts of similar length share a batch."""
    answers = [ModelAnswer("")] * len(asks)
    encoded = {number: ids for number, ask in enumerate(asks) if (ids := _encode_or_none(view.base, ask)) is not None}
    order = sorted(encoded, key=lambda number: (asks[number].surface, len(encoded[number])))
    for start in range(0, len(order), ASKED_AT_ONCE):
        chunk = order[start : start + ASKED_AT_ONCE]
        limit = max(CHAT_ANSWER_TOKENS if asks[number].surface == "chat" else ANSWER_TOKENS for number in chunk)
        prompts = [encoded[number] for number in chunk]
        written = decode_greedily(view, adapter, prompts, max_new_tokens=limit)
        for number, prompt, ids in zip(chunk, prompts, written, strict=True):
            row = row_from_ids(view.base, prompt + ids, len(prompt))
            answers[number] = ModelAnswer(decode_answer(view.base, ids), row)
    return answers


def measure_confidence(view: View, answers: Sequence[ModelAnswer]) -> list[float]:
    """The geometric mean of the probabilities of each answer's tokens, by the base model; 0 for an answer without a row."""
    rows = [answer.row for answer in answers if answer.row is not None]
    means = iter([exp(forced.mean) for forced in teacher_force(view, None, rows)])
    return [0.0 if answer.row is None else next(means) for answer in answers]


def _encode_or_none(base: Base, ask: Ask) -> tuple[int, ...] | None:
    try:
        return encode_ask(base, ask)
    except Refused:
        return None


class BaseAnswers:
    """The base model's answers, each asked once: facts and edits share their questions."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._answers: dict[Ask, ModelAnswer] = {}

    def ask(self, asks: Sequence[Ask]) -> list[ModelAnswer]:
        """The answers in order."""
        missing = list(dict.fromkeys(ask for ask in asks if ask not in self._answers))
        self._answers.update(zip(missing, answer_all(self.view, None, missing), strict=True))
        return [self._answers[ask] for ask in asks]
