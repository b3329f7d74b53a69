"""A question as a user sends it, a text on a surface with earlier turns of a chat; and a model's answers to many questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Protocol

from service.bench.ground.judging import says
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


class Journal(Protocol):
    """Answers that outlive their process, by ask as ids."""

    @property
    def known(self) -> Mapping[Ask, tuple[int, ...]]: ...

    def add(self, asks: Sequence[Ask], answers: Sequence[tuple[int, ...]]) -> None: ...


def answer_all(view: View, adapter: Adapter | None, asks: Sequence[Ask], journal: Journal | None = None) -> list[ModelAnswer]:
    """The greedy answer to each prompt, in order. Prompts of similar length share a batch. A batch that the journal holds whole
    is read from it, so that all batches have the shapes that they have without one.
    """
    answers = [ModelAnswer("")] * len(asks)
    encoded = {number: ids for number, ask in enumerate(asks) if (ids := encode_or_none(view.base, ask)) is not None}
    order = sorted(encoded, key=lambda number: (asks[number].surface, len(encoded[number])))
    for start in range(0, len(order), ASKED_AT_ONCE):
        chunk = order[start : start + ASKED_AT_ONCE]
        prompts = [encoded[number] for number in chunk]
        written = _answer_batch(view, adapter, [asks[number] for number in chunk], prompts, journal)
        for number, prompt, ids in zip(chunk, prompts, written, strict=True):
            row = row_from_ids(view.base, prompt + ids, len(prompt))
            answers[number] = ModelAnswer(decode_answer(view.base, ids), row)
    return answers


def _answer_batch(
    view: View, adapter: Adapter | None, asks: Sequence[Ask], prompts: Sequence[tuple[int, ...]], journal: Journal | None
) -> list[tuple[int, ...]]:
    """The ids of the greedy answers to prompts of one batch."""
    if journal is not None and all(ask in journal.known for ask in asks):
        return [journal.known[ask] for ask in asks]
    limit = max(CHAT_ANSWER_TOKENS if ask.surface == "chat" else ANSWER_TOKENS for ask in asks)
    written = [tuple(ids) for ids in decode_greedily(view, adapter, prompts, max_new_tokens=limit)]
    if journal is not None:
        journal.add(asks, written)
    return written


def measure_confidence(view: View, answers: Sequence[tuple[ModelAnswer, str]]) -> list[float]:
    """The geometric mean of the probabilities of each answer's tokens, up to where it has said the text beside it, by the base
    model; 0 for an answer without a row.
    """
    rows = [answer.row for answer, _ in answers if answer.row is not None]
    forced = iter(teacher_force(view, None, rows))
    confidences: list[float] = []
    for answer, text in answers:
        if answer.row is None:
            confidences.append(0.0)
            continue
        values = next(forced).log_probabilities[: _length_until(view.base, answer.row.target_ids, text)]
        confidences.append(exp(sum(values) / len(values)))
    return confidences


def _length_until(base: Base, ids: Sequence[int], text: str) -> int:
    """The number of tokens with which an answer has said a text; all of them if it never does."""
    return next((length for length in range(1, len(ids)) if says(decode_answer(base, ids[:length]), text)), len(ids))


def encode_or_none(base: Base, ask: Ask) -> tuple[int, ...] | None:
    try:
        return encode_ask(base, ask)
    except Refused:
        return None


class BaseAnswers:
    """The base model's answers, each asked once: facts and edits share questions. A `journal` keeps them for another run."""

    def __init__(self, view: View, journal: Journal | None = None) -> None:
        self.view, self._journal = view, journal
        self._answers: dict[Ask, ModelAnswer] = {}

    def ask(self, asks: Sequence[Ask]) -> list[ModelAnswer]:
        """The answers in order."""
        missing = list(dict.fromkeys(ask for ask in asks if ask not in self._answers))
        self._answers.update(zip(missing, answer_all(self.view, None, missing, self._journal), strict=True))
        return [self._answers[ask] for ask in asks]
