"""Continuous batching: one thread answers requests of many versions from one copy of the weights.

Requests of one version are decoded as one batch. Versions take turns after each token, so a long answer delays no other. Between
tokens, rows that ended, were cancelled or reached their deadline leave the batch, and waiting requests join it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from service.domain.errors import Corrupt, Unavailable
from service.lm.base import Base
from service.lm.decoding import Decoding
from service.lm.overlay import Overlay, View
from service.lm.sampling import greedy_tokens
from service.serving.request import Answer, AnswerInProgress, Generation, check_generation
from service.serving.residents import Resident, Residents

__all__ = ["Answer", "Generation", "Scheduler"]

RESTART_S = 30.0  # about the duration of a restart, after which a client may try again
GIVE_WAY_S = 0.05  # longest wait of a fit's step for answers; a step itself takes about as long
log = logging.getLogger(__name__)


@dataclass(eq=False)
class DecodingGroup:
    """The answers in progress of one version, in the order of the rows of `decoding`."""

    resident: Resident
    decoding: Decoding
    answers: list[AnswerInProgress]


@dataclass(eq=False)
class PendingRequest:
    """An accepted request that waits, and the version that it is pinned to."""

    resident: Resident
    answer: AnswerInProgress


@dataclass(eq=False)
class SchedulerState:
    """The requests and flags of the scheduler. The condition guards `waiting` and the flags; `groups` belong to the thread."""

    waiting: deque[PendingRequest] = field(default_factory=deque)
    groups: dict[int, DecodingGroup] = field(default_factory=dict)  # by identity of the resident
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

    def submit(self, generation: Generation) -> Future[Answer]:
        """Accept a request and pin it to its version.

        Raises Refused or TooLong for an invalid request, NotFound if the version is not loaded, Unavailable if too many wait.
        """
        self._require_sound()
        check_generation(self.base, generation)
        resident, epoch = self._residents.choose(generation.version)
        answering = AnswerInProgress(self.base, generation, version=resident.version, epoch=epoch)
        with self._changed:
            if self._state.closing:
                raise Unavailable("The server is stopping.")
            if len(self._state.waiting) >= self._queue_limit:
                raise Unavailable("Too many requests are waiting for an answer.")
            self._state.waiting.append(PendingRequest(resident, answering))
            self._changed.notify_all()
        return answering.future

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
        for arrived in self._admitted():
            self._enter(arrived)
        for group in list(self._state.groups.values()):
            self._guarded(group, self._step)
        self._count()

    def _wait_for_work(self) -> bool:
        """Block until there is work. Returns whether the thread goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy() or self._state.closing)
            return not self._state.aborting and (self._busy() or not self._state.closing)

    def _interrupt_waiting(self) -> None:
        """Remove cancelled and expired requests from the queue, before they cost a forward pass."""
        with self._changed:
            ended = [(one, reason) for one in self._state.waiting if (reason := one.answer.interruption())]
            for one, _ in ended:
                self._state.waiting.remove(one)
        for one, reason in ended:
            one.answer.finish(reason)

    def _admitted(self) -> list[list[PendingRequest]]:
        """The requests for which the batch has places, oldest first, grouped by version."""
        with self._changed:
            room = self._max_batch - self._state.decoding
            arrived = [self._state.waiting.popleft() for _ in range(min(room, len(self._state.waiting)))]
            self._state.decoding += len(arrived)
        groups: dict[int, list[PendingRequest]] = {}
        for one in arrived:
            groups.setdefault(id(one.resident), []).append(one)
        return list(groups.values())

    def _enter(self, arrived: Sequence[PendingRequest]) -> None:
        """Prefill the prompts of requests of one version, and add them to the version's batch."""
        resident, answers = arrived[0].resident, [one.answer for one in arrived]
        try:
            decoding = Decoding(resident.view, resident.adapter, [answer.generation.prompt_ids for answer in answers])
        except Exception as error:
            _log_error(error)
            _fail(answers, Unavailable("The prompt could not be read now; try again."))
            return
        group = self._state.groups.get(id(resident))
        if group is None:
            self._state.groups[id(resident)] = DecodingGroup(resident, decoding, answers)
        elif self._guarded(group, lambda present: present.decoding.join(decoding), also=answers):
            group.answers += answers

    def _step(self, group: DecodingGroup) -> None:
        """Decode one token for every answer of a group. Answers that end leave before the next token is computed."""
        finite = torch.isfinite(group.decoding.logits.amax(-1)).tolist()  # NaN and +inf show in the largest
        best = greedy_tokens(group.decoding.logits).tolist()  # for all at once: each transfer from a device waits for it
        remaining, tokens = [], []
        for place, answer in enumerate(group.answers):
            reason = answer.interruption()
            if reason is None and not finite[place]:
                answer.fail(Corrupt("The version gives numbers that are not finite."))
                continue
            if reason is None:
                token = answer.choose(group.decoding.logits[place], best[place])
                reason = answer.take(token)
            if reason is None:
                remaining.append(place)
                tokens.append(token)
            else:
                answer.finish(reason)
        if remaining and len(remaining) < len(group.answers):
            group.decoding.keep(remaining)
        group.answers = [group.answers[place] for place in remaining]
        if remaining:
            group.decoding.feed(torch.tensor(tokens))

    def _guarded(
        self, group: DecodingGroup, act: Callable[[DecodingGroup], None], *, also: Sequence[AnswerInProgress] = ()
    ) -> bool:
        """Run `act` and return whether it succeeded. An exception fails the answers of its group only; other groups continue."""
        try:
            act(group)
        except Exception as error:
            _log_error(error)
            _fail([*group.answers, *also], Unavailable("The answer could not be computed now; try again."))
            group.answers = []
            return False
        return True

    def _count(self) -> None:
        self._state.groups = {key: group for key, group in self._state.groups.items() if group.answers}
        with self._changed:
            self._state.decoding = sum(len(group.answers) for group in self._state.groups.values())
            self._changed.notify_all()

    def _fail_all(self, error: Unavailable) -> None:
        with self._changed:
            waiting = [one.answer for one in self._state.waiting]
            self._state.waiting.clear()
        _fail([*waiting, *(answer for group in self._state.groups.values() for answer in group.answers)], error)
        self._state.groups.clear()
        self._count()


def _fail(answers: Sequence[AnswerInProgress], error: Exception) -> None:
    for answer in answers:
        answer.fail(error)


def _log_error(error: Exception) -> None:
    """Log the class of an error alone, because its message may contain a user's text."""
    log.error("decoding failed: %s", type(error).__name__)
