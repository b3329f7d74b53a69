"""One answer: its request, the choice of its next token, and its end. Knows no batches and no threads.

All parameters are explicit. The generation defaults of a checkpoint (repetition penalty, sampling, length) are never used.
"""

import math
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from service.domain.errors import Refused, TooLong
from service.lm.base import Base
from service.lm.sampling import sample_tokens
from service.lm.tokenizing import decode_ids

FinishReason = Literal["stop", "length", "deadline", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The request. `version` None is the head at submission. `deadline` is a time of the monotonic clock, in seconds."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    version: int | None = None
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    deadline: float | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The completion: leading white space stripped, cut before a stop string, `ids` without the ending token."""

    text: str
    ids: tuple[int, ...]
    version: int
    epoch: int
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


def check_generation(base: Base, generation: Generation) -> None:
    """Raise Refused or TooLong for an invalid request. Nothing is cut or rounded to fit."""
    if not generation.prompt_ids:
        raise Refused("The prompt is blank.", field="prompt")
    if generation.max_new_tokens < 1:
        raise Refused("max_new_tokens must be at least 1.", field="max_new_tokens")
    if len(generation.prompt_ids) + generation.max_new_tokens > base.context_length:
        raise TooLong(
            f"The prompt and max_new_tokens together exceed the model's context of {base.context_length} tokens.", field="prompt"
        )
    if not (math.isfinite(generation.temperature) and generation.temperature >= 0):
        raise Refused("temperature must be 0 or a finite positive number.", field="temperature")
    if not 0 < generation.top_p <= 1:
        raise Refused("top_p must be more than 0 and at most 1.", field="top_p")
    if any(not text for text in generation.stop):
        raise Refused("A stop string must not be empty.", field="stop")


class AnswerInProgress:
    """An answer in progress. Its random numbers come from its own generator, so they do not depend on other answers."""

    def __init__(self, base: Base, generation: Generation, *, version: int, epoch: int) -> None:
        self.generation = generation
        self.version = version
        self.epoch = epoch
        self.future: Future[Answer] = Future()
        self.future.set_running_or_notify_cancel()  # a caller that gives up sets `cancelled`; the future always ends
        self._base = base
        self._ids: list[int] = []
        seed = secrets.randbits(63) if generation.seed is None else generation.seed % 2**63
        self._generator = torch.Generator().manual_seed(seed)

    def interruption(self) -> FinishReason | None:
        """The reason to end the answer before its next token, or None."""
        if self.generation.cancelled.is_set():
            return "cancelled"
        if self.generation.deadline is not None and time.monotonic() >= self.generation.deadline:
            return "deadline"
        return None

    def choose(self, logits: Tensor, likeliest: int) -> int:
        """The next token, given its logits (V,) and their largest one's token `likeliest`."""
        if self.generation.temperature == 0:
            return likeliest
        point = torch.rand(1, generator=self._generator)
        return int(sample_tokens(logits[None], point, temperature=self.generation.temperature, top_p=self.generation.top_p))

    def take(self, token: int) -> FinishReason | None:
        """Add a token. Returns the reason if the token ends the answer, else None."""
        if token in self._base.eos_ids:
            return "stop"
        self._ids.append(token)
        if self.generation.stop and self._stop_at(decode_ids(self._base, self._ids)) is not None:
            return "stop"
        return "length" if len(self._ids) >= self.generation.max_new_tokens else None

    def finish(self, reason: FinishReason) -> None:
        """Deliver the answer."""
        text = decode_ids(self._base, self._ids)
        answer = Answer(
            text=text[: self._stop_at(text)].lstrip(),
            ids=tuple(self._ids),
            version=self.version,
            epoch=self.epoch,
            finish_reason=reason,
            prompt_tokens=len(self.generation.prompt_ids),
            completion_tokens=len(self._ids),
        )
        self.future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Deliver an error, unless the answer has ended."""
        if not self.future.done():
            self.future.set_exception(error)

    def _stop_at(self, text: str) -> int | None:
        positions = [position for position in (text.find(stop) for stop in self.generation.stop) if position >= 0]
        return min(positions, default=None)
