"""Continuous batching: one thread answers requests of many versions from one copy of the weights.

Requests of versions with the same replaced tensors are decoded as one batch, each row under the adapter of its own version.
Batches take turns after each token, so a long answer delays no other. Between tokens, rows that ended, were cancelled or reached
their deadline leave the batch, and waiting requests join it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from service.domain.errors import Corrupt, Unavailable
from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.overlay import Overlay, View
from service.lm.sampling import greedy_tokens
from service.serving.answer_stream import Answer, AnswerStream
from service.serving.request import Generation, check_generation
from service.serving.residents import Residents

__all__ = ["Answer", "AnswerStream", "Generation", "Scheduler"]

RESTART_S = 30.0  # about the duration of a restart, after which a client may try again
GIVE_WAY_S = 0.05  # longest wait of a fit's step for answers; a step itself takes about as long
log = logging.getLogger(__name__)


@dataclass(eq=False)
class DecodingGroup:
    """The answers in progress on one view, in the order of the rows of `decoding`."""

    decoding: Decoding
    answers: list[AnswerStream]


@dataclass(eq=False)
class SchedulerState:
    """The requests and flags of the scheduler. The condition guards `waiting` and the flags; `groups` belong to the thread."""

    waiting: deque[AnswerStream] = field(default_factory=deque)
    groups: dict[View, DecodingGroup] = field(default_factory=dict)
    decoding: int = 0  # rows in flight
    closing: bool = False  # accept nothing more
    aborting: bool = False  # drop what is in flight


class Scheduler:
    """The one place where answers are decoded. Methods may be called from any thread."""

    def __init__(self, base: Base, *, resident: int = 16, max_batch: int = 32, queue_limit: int = 256) -> None:
        self.base = base
        self._residents = Residents(base, resident)
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._state = SchedulerState()
        self._refused: str | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Accept no more requests, let answers finish for `timeout_s` seconds, then fail the others with Unavailable."""
        with self._changed:
            self._state.closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        with self._changed:
            self._state.aborting = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._fail_all(Unavailable("The server stopped before the answer was begun."))

    def refuse(self, sentence: str) -> None:
        """Stop answering, and stop fits at their next step. Both raise Unavailable with this sentence from now on."""
        self._refused = sentence

    @property
    def head(self) -> tuple[int, int]:
        """The version that answers by default, and its epoch."""
        return self._residents.head

    @property
    def load(self) -> tuple[int, int]:
        """The number of waiting requests, and of answers in progress."""
        with self._changed:
            return len(self._state.waiting), self._state.decoding

    def adopt(self, version: int, overlay: Overlay) -> None:
        """Load a version. The least recently used one over the limit is evicted, but never the base or the head."""
        self._residents.adopt(version, overlay)

    def set_head(self, version: int, epoch: int) -> None:
        """Answer requests without a version by this one from now on. Raises NotFound if it is not loaded."""
        self._residents.set_head(version, epoch)

    def drop(self, version: int) -> None:
        """Unload a version. Its answers in progress finish on it. Raises Conflict for the base and the head."""
        self._residents.drop(version)

    def is_resident(self, version: int) -> bool:
        """Whether a version can answer now."""
        return self._residents.has(version)

    def view_of(self, overlay: Overlay) -> View:
        """The view with an overlay's tensors. Overlays with the same tensors share one view."""
        return self._residents.view_of(overlay)

    def submit(self, generation: Generation) -> AnswerStream:
        """Accept a request and pin it to its version. Returns the stream of its answer.

        Raises Refused or TooLong for an invalid request, NotFound if the version is not loaded, Unavailable if too many wait.
        """
        self._require_sound()
        check_generation(self.base, generation)
        resident, epoch = self._residents.choose(generation.version)
        stream = AnswerStream(self.base, generation, resident=resident, epoch=epoch)
        with self._changed:
            if self._state.closing:
                raise Unavailable("The server is stopping.")
            if len(self._state.waiting) >= self._queue_limit:
                raise Unavailable("Too many requests are waiting for an answer.")
            self._state.waiting.append(stream)
            self._changed.notify_all()
        return stream

    def yield_to_answers(self) -> None:
        """Wait at most GIVE_WAY_S while answers are being decoded. Called between the steps of a fit."""
        self._require_sound()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy(), timeout=GIVE_WAY_S)

    def _require_sound(self) -> None:
        if self._refused is not None:
            raise Unavailable(self._refused, retry_after_s=RESTART_S)

    def _busy(self) -> bool:
        return bool(self._state.waiting) or self._state.decoding > 0

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
            except Exception as error:  # the thread must survive: without it no request is answered
                _log_error(error)
                self._fail_all(Unavailable("The answer could not be computed now; try again."))
        self._fail_all(Unavailable("The server stopped before the answer was complete."))

    def _turn(self) -> None:
        """Admit waiting requests, then decode one token for every answer in progress."""
        self._require_sound()
        self._interrupt_waiting()
        for view, arrived in self._admitted().items():
            self._enter(view, arrived)
        for view in list(self._state.groups):
            self._guarded(view, _step)
        self._count()

    def _wait_for_work(self) -> bool:
        """Block until there is work. Returns whether the thread goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy() or self._state.closing)
            return not self._state.aborting and (self._busy() or not self._state.closing)

    def _interrupt_waiting(self) -> None:
        """Remove cancelled and expired requests from the queue, before they cost a forward pass."""
        with self._changed:
            ended = [(one, reason) for one in self._state.waiting if (reason := one.interruption())]
            for one, _ in ended:
                self._state.waiting.remove(one)
        for one, reason in ended:
            one.finish(reason)

    def _admitted(self) -> dict[View, list[AnswerStream]]:
        """The requests for which there are places, oldest first, grouped by view."""
        with self._changed:
            room = self._max_batch - self._state.decoding
            arrived = [self._state.waiting.popleft() for _ in range(min(room, len(self._state.waiting)))]
            self._state.decoding += len(arrived)
        groups: dict[View, list[AnswerStream]] = {}
        for one in arrived:
            groups.setdefault(one.resident.view, []).append(one)
        return groups

    def _enter(self, view: View, arrived: Sequence[AnswerStream]) -> None:
        """Prefill the prompts of requests on one view, and add them to the view's batch.

        If the prefill fails, each prompt is prefilled alone: a version that cannot compute must not fail the others.
        """
        try:
            adapters = [answer.resident.adapter for answer in arrived]
            decoding = Decoding(view, adapters, [answer.generation.prompt_ids for answer in arrived])
        except Exception as error:
            _log_error(error)
            if len(arrived) == 1:
                _fail(arrived, Unavailable("The prompt could not be read now; try again."))
                return
            for answer in arrived:
                self._enter(view, [answer])
            return
        group = self._state.groups.get(view)
        if group is None:
            self._state.groups[view] = DecodingGroup(decoding, list(arrived))
            return
        group.answers += arrived
        self._guarded(view, lambda group: group.decoding.join(decoding))

    def _guarded(self, view: View, act: Callable[[DecodingGroup], None]) -> None:
        """Run `act` on the group of a view. An exception fails the answers of this group only, and ends the group."""
        group = self._state.groups[view]
        try:
            act(group)
        except Exception as error:
            _log_error(error)
            _fail(group.answers, Unavailable("The answer could not be computed now; try again."))
            del self._state.groups[view]

    def _count(self) -> None:
        self._state.groups = {key: group for key, group in self._state.groups.items() if group.answers}
        with self._changed:
            self._state.decoding = sum(len(group.answers) for group in self._state.groups.values())
            self._changed.notify_all()

    def _fail_all(self, error: Unavailable) -> None:
        with self._changed:
            waiting = list(self._state.waiting)
            self._state.waiting.clear()
        _fail([*waiting, *(answer for group in self._state.groups.values() for answer in group.answers)], error)
        self._state.groups.clear()
        self._count()


def _step(group: DecodingGroup) -> None:
    """Decode one token for every answer of a group. Answers that end leave before the next token is computed."""
    logits = group.decoding.logits
    finite = torch.isfinite(logits.amax(-1)).tolist()  # NaN and +inf show in the largest
    best = greedy_tokens(logits).tolist()  # for all at once: each transfer from a device waits for it
    tokens = [_next_token(answer, logits[row], best[row], is_finite=finite[row]) for row, answer in enumerate(group.answers)]
    remaining = [(row, token) for row, token in enumerate(tokens) if token is not None]
    if remaining and len(remaining) < len(group.answers):
        group.decoding.keep([row for row, _ in remaining])
    group.answers = [group.answers[row] for row, _ in remaining]
    if remaining:
        group.decoding.feed(torch.tensor([token for _, token in remaining]))


def _next_token(answer: AnswerStream, logits: Tensor, likeliest: int, *, is_finite: bool) -> int | None:
    """The token that continues an answer, or None if the answer has ended. An exception fails this answer only."""
    try:
        reason = answer.interruption()
        if reason is None and not is_finite:
            answer.fail(Corrupt("The version gives numbers that are not finite."))
            return None
        if reason is None:
            token = answer.choose(logits, likeliest)
            reason = answer.take(token)
        if reason is None:
            return token
        answer.finish(reason)
    except Exception as error:
        _log_error(error)
        answer.fail(Unavailable("The answer could not be computed now; try again."))
    return None


def _fail(answers: Sequence[AnswerStream], error: Exception) -> None:
    for answer in answers:
        answer.fail(error)


def _log_error(error: Exception) -> None:
    """Log the class of an error alone, because its message may contain a user's text."""
    log.error("decoding failed: %s", type(error).__name__)
