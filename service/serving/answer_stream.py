"""One answer in progress: the scheduler adds tokens, and a reader iterates over deltas of text or waits for the whole.

The two threads share the tokens alone, and the reader decodes them. So a slow or absent reader delays nobody. Its next delta is
longer, and at most `max_new_tokens` tokens are stored for it. Knows no batches.
"""

import secrets
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from service.lm.base import Base
from service.lm.sampling import sample_tokens
from service.lm.tokenizing import decode_ids
from service.serving.answer_text import find_stop, settled_text, whole_text
from service.serving.request import FinishReason, Generation
from service.serving.residents import Resident


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The completion: leading white space stripped, cut before a stop string, `ids` without the ending token."""

    text: str
    ids: tuple[int, ...]
    version: int
    epoch: int
    finish_reason: FinishReason
    prompt_tokens: int
    context_tokens: int  # of what stood in front of the prompt
    completion_tokens: int


class AnswerStream:
    """An answer in progress, pinned to a version. The future `answer` always ends, with an Answer or an error.

    Iteration yields deltas, and no delta is ever taken back. Their concatenation is the text of the Answer. The iterator returns
    the finish reason, or raises the answer's error. A reader that leaves the iteration early cancels the answer.

    Random numbers come from the answer's own generator, so they do not depend on other answers.
    """

    def __init__(self, base: Base, generation: Generation, *, resident: Resident, epoch: int) -> None:
        self.generation = generation
        self.resident = resident
        self.answer: Future[Answer] = Future()
        self.answer.set_running_or_notify_cancel()  # a reader that gives up calls `cancel`; the future always ends
        self._base = base
        self._epoch = epoch
        self._ids: list[int] = []
        self._changed = threading.Condition()
        seed = secrets.randbits(63) if generation.seed is None else generation.seed % 2**63
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Generator[str, None, FinishReason]:
        read = sent = 0
        try:
            while not self._wait_for_more(read):
                ids = tuple(self._ids)
                text = settled_text(self._base, ids, self.generation.stop)
                if len(text) > sent:
                    yield text[sent:]
                read, sent = len(ids), max(sent, len(text))
            answer = self.answer.result()
            if len(answer.text) > sent:
                yield answer.text[sent:]
            return answer.finish_reason
        finally:
            self.cancel()

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer. Raises its error, or TimeoutError after `timeout_s` seconds."""
        return self.answer.result(timeout_s)

    def cancel(self) -> None:
        """End the answer before its next token."""
        self.generation.cancelled.set()

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens so far."""
        return tuple(self._ids)

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
        self._wake_reader()
        if self.generation.stop and find_stop(decode_ids(self._base, self._ids), self.generation.stop) is not None:
            return "stop"
        return "length" if len(self._ids) >= self.generation.max_new_tokens else None

    def finish(self, reason: FinishReason) -> None:
        """Deliver the answer."""
        answer = Answer(
            text=whole_text(self._base, self._ids, self.generation.stop),
            ids=tuple(self._ids),
            version=self.resident.version,
            epoch=self._epoch,
            finish_reason=reason,
            prompt_tokens=len(self.generation.prompt_ids) - self.generation.context_tokens,
            context_tokens=self.generation.context_tokens,
            completion_tokens=len(self._ids),
        )
        self.answer.set_result(answer)
        self._wake_reader()

    def fail(self, error: Exception) -> None:
        """Deliver an error, unless the answer has ended."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self._wake_reader()

    def _wake_reader(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_for_more(self, read: int) -> bool:
        """Wait for more tokens than `read`, or for the end. Returns whether the answer has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ids) > read or self.answer.done())
            return self.answer.done()
