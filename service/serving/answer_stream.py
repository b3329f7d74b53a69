"""One answer in progress: the scheduler adds tokens, and a reader iterates over deltas of text or waits for the whole.

The two threads share the tokens alone, and the reader decodes them. So a slow or absent reader delays nobody. Its next delta is
longer, and at most `max_new_tokens` tokens are stored for it. Knows no batches.
"""

import secrets
import threading
import time
from collections.abc import Callable, Generator
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


@dataclass(frozen=True)
class TokenLogprobs:
    """The natural logarithms of probabilities at one position, by the model's own distribution, whatever the temperature: of the
    token that was chosen, and of the likeliest ones, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The completion: white space in front stripped unless kept, cut before a stop string; `ids` without the ending token."""

    text: str
    ids: tuple[int, ...]
    version: int
    epoch: int
    finish_reason: FinishReason
    prompt_tokens: int
    context_tokens: int  # of what stood in front of the prompt
    completion_tokens: int
    logprobs: tuple[TokenLogprobs, ...] = ()  # of each token, if they were asked for


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
        self._logprobs: list[TokenLogprobs] = []
        self._subscriber: Callable[[], None] | None = None
        self._changed = threading.Condition()
        seed = secrets.randbits(63) if generation.seed is None else generation.seed % 2**63
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Generator[str, None, FinishReason]:
        read = sent = 0
        try:
            while not self._wait_for_more(read):
                ids = tuple(self._ids)
                text = self.settled()
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

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after every token and at the end, in the thread that decodes. It must neither block nor raise."""
        self._subscriber = on_change

    def settled(self) -> str:
        """The text so far, as far as no further token can change it."""
        return settled_text(self._base, self._ids, self.generation.stop, keeps_space=self.generation.keeps_space)

    @property
    def logprobs(self) -> tuple[TokenLogprobs, ...]:
        """The probabilities of the tokens so far, if they were asked for."""
        return tuple(self._logprobs)

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
        token = likeliest
        if self.generation.temperature > 0:
            point = torch.rand(1, generator=self._generator)
            temperature, top_p = self.generation.temperature, self.generation.top_p
            token = int(sample_tokens(logits[None], point, temperature=temperature, top_p=top_p))
        if self.generation.top_logprobs is not None and token not in self._base.eos_ids:
            self._logprobs.append(measure_logprobs(logits, token, self.generation.top_logprobs))
        return token

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
            text=whole_text(self._base, self._ids, self.generation.stop, keeps_space=self.generation.keeps_space),
            ids=tuple(self._ids),
            version=self.resident.version,
            epoch=self._epoch,
            finish_reason=reason,
            prompt_tokens=len(self.generation.prompt_ids) - self.generation.context_tokens,
            context_tokens=self.generation.context_tokens,
            completion_tokens=len(self._ids),
            logprobs=self.logprobs,
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
        if self._subscriber is not None:
            self._subscriber()

    def _wait_for_more(self, read: int) -> bool:
        """Wait for more tokens than `read`, or for the end. Returns whether the answer has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ids) > read or self.answer.done())
            return self.answer.done()


def measure_logprobs(logits: Tensor, token: int, most: int) -> TokenLogprobs:
    """The probabilities at one position, given its logits (V,)."""
    shares = torch.log_softmax(logits.detach().float(), -1)
    values, tokens = shares.topk(min(most, len(shares)))
    return TokenLogprobs(token, float(shares[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))
