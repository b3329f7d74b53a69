"""Continuous batching: one thread answers requests of many versions from one copy of the weights.

Requests of versions with the same replaced tensors are decoded as one batch, each row under the adapter of its own version.
Batches take turns after each token, so a long answer delays no other. Between tokens, rows that ended, were cancelled or reached
their deadline leave the batch, and waiting requests join it.

A batch that fails is computed again in two halves, from the tokens that its rows have. So the rows that cannot be computed are
soon alone and fail alone, and a batch that is too large for the memory goes on as two.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from service.domain.errors import Corrupt, Overloaded, ServiceError, Unavailable, Uncomputable
from service.lm.base import Base
from service.lm.compute_thread import ComputeThread, keep_thread_count
from service.lm.decoding import Decoding
from service.lm.overlay import Overlay, View
from service.lm.sampling import greedy_tokens
from service.lm.stated_edits import NOTHING_STATED, StatedEdits
from service.serving.answer_stream import Answer, AnswerStream
from service.serving.request import Generation, check_generation
from service.serving.residents import Resident, Residents

__all__ = ["Answer", "AnswerStream", "Generation", "Scheduler"]

RESTART_S = 30.0  # about the duration of a restart, after which a client may try again
GIVE_WAY_S = 0.05  # longest wait of a fit's step for answers; a step itself takes about as long
log = logging.getLogger(__name__)


@dataclass(eq=False)
class DecodingGroup:
    """Answers in progress on one view, in the order of the rows of `decoding`. Several groups may have one view."""

    view: View
    decoding: Decoding
    answers: list[AnswerStream]
    is_repetition: bool = False  # computed again after a failure, and not gone on since


@dataclass(eq=False)
class SchedulerState:
    """The requests and flags of the scheduler. The condition guards `waiting` and the flags; `groups` belong to the thread."""

    waiting: deque[AnswerStream] = field(default_factory=deque)
    groups: list[DecodingGroup] = field(default_factory=list)
    decoding: int = 0  # rows in flight
    closing: bool = False  # accept nothing more
    aborting: bool = False  # drop what is in flight


class Scheduler:
    """The one place where answers are decoded. Methods may be called from any thread. `base_version` is the number of the version
    that is the base alone.
    """

    def __init__(
        self, base: Base, *, base_version: int = 0, resident: int = 16, max_batch: int = 32, queue_limit: int = 256
    ) -> None:
        self.base = base
        self.base_version = base_version
        self._residents = Residents(base, resident, base_version=base_version)
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._state = SchedulerState()
        self._refused: str | None = None
        self._changed = threading.Condition()
        self._thread = ComputeThread(target=self._run, name="answers", daemon=True)

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

    def abort(self) -> None:
        """Accept no more requests, and fail those that wait or are being answered with Unavailable, without waiting for it."""
        with self._changed:
            self._state.closing = self._state.aborting = True
            self._changed.notify_all()

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

    def adopt(self, version: int, overlay: Overlay, stated: StatedEdits = NOTHING_STATED) -> None:
        """Load a version with the edits that it states. The least recently used one over the limit is evicted, but never the base
        or the head.
        """
        keep_thread_count()  # loading may merge components, in whichever thread wants the version
        self._residents.adopt(version, overlay, stated)

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

    def pin(self, version: int | None) -> tuple[Resident, int]:
        """A version (None: the head) as it answers now, and the epoch. For a prompt that depends on what its version states.

        Raises NotFound if the version is not loaded.
        """
        return self._residents.choose(version)

    def submit(self, generation: Generation, pinned: tuple[Resident, int] | None = None) -> AnswerStream:
        """Accept a request and pin it to its version, unless it is `pinned` already. Returns the stream of its answer.

        Raises Refused or TooLong for an invalid request, NotFound if the version is not loaded, Overloaded if too many
        wait, Unavailable at a stop.
        """
        self._require_sound()
        check_generation(self.base, generation)
        resident, epoch = pinned or self._residents.choose(generation.version)
        stream = AnswerStream(self.base, generation, resident=resident, epoch=epoch)
        with self._changed:
            if self._state.closing:
                raise Unavailable("The server is stopping.")
            if len(self._state.waiting) >= self._queue_limit:
                raise Overloaded("Too many requests are waiting for an answer.")
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
                sentence = "The answer could not be computed now; try again."
                self._fail_all(error if isinstance(error, Unavailable) else Unavailable(sentence))
        self._fail_all(Unavailable("The server stopped before the answer was complete."))

    def _turn(self) -> None:
        """Admit waiting requests, then decode one token for every answer in progress."""
        self._require_sound()
        self._interrupt_waiting()
        for view, arrived in self._admitted().items():
            self._enter(view, arrived)
        for group in list(self._state.groups):
            self._advance(group)
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
        """Prefill the prompts of requests on one view, and add them to the view's smallest batch, if there is room for both."""
        for entering in _prefill(view, arrived):
            present = [group for group in self._state.groups if group.view is view]
            group = min(present, key=lambda group: len(group.answers), default=entering)
            if group is entering or _failure(partial(group.decoding.join, entering.decoding)) is not None:
                self._state.groups.append(entering)
            else:
                group.answers += entering.answers

    def _advance(self, group: DecodingGroup) -> None:
        """Decode one token for every answer of a group. If that fails, compute its rows again, in two halves.

        A row that fails alone, and fails again when it is repeated, gets the failure for its answer.
        """
        failure = _failure(partial(_step, group))
        if failure is None:
            group.is_repetition = False
            return
        self._state.groups.remove(group)
        del group.decoding  # its memory is needed for the repetition
        answers = [answer for answer in group.answers if not answer.answer.done()]
        if len(answers) == 1 and group.is_repetition:
            _fail(answers, failure)
            return
        for part in _halves(answers):
            self._state.groups += _prefill(group.view, part, is_repetition=True)

    def _count(self) -> None:
        self._state.groups = [group for group in self._state.groups if group.answers]
        with self._changed:
            self._state.decoding = sum(len(group.answers) for group in self._state.groups)
            self._changed.notify_all()

    def _fail_all(self, error: Unavailable) -> None:
        with self._changed:
            waiting = list(self._state.waiting)
            self._state.waiting.clear()
        _fail([*waiting, *(answer for group in self._state.groups for answer in group.answers)], error)
        self._state.groups.clear()
        self._count()


def _prefill(view: View, answers: Sequence[AnswerStream], *, is_repetition: bool = False) -> list[DecodingGroup]:
    """The groups of answers on one view, after their prompts and the tokens that they have. Rows that cannot be computed fail.

    All rows are one group if they can be computed together. Else each half of them is tried, and one row is tried twice.
    """
    groups: list[DecodingGroup] = []

    def compute() -> None:
        adapters = [answer.resident.adapter for answer in answers]
        prompts = [answer.generation.prompt_ids for answer in answers]
        asked = [answer.generation.asked_ids or answer.generation.prompt_ids for answer in answers]
        decoding = Decoding(view, adapters, prompts, [answer.ids for answer in answers], asked)
        groups.append(DecodingGroup(view, decoding, list(answers), is_repetition))

    failure = _failure(compute)
    if failure is not None and len(answers) == 1:
        failure = _failure(compute)
        if failure is not None:
            _fail(answers, failure)
    elif failure is not None:
        for part in _halves(answers):
            groups += _prefill(view, part, is_repetition=is_repetition)
    return groups


def _halves(answers: Sequence[AnswerStream]) -> list[Sequence[AnswerStream]]:
    """The two halves of answers; one of one answer, none of none."""
    middle = (len(answers) + 1) // 2
    return [part for part in (answers[:middle], answers[middle:]) if part]


def _failure(act: Callable[[], None]) -> ServiceError | None:
    """Run `act`. Its exception becomes an error of the service, which, unlike the exception, keeps no tensor in memory."""
    try:
        act()
    except Exception as error:
        return _to_failure(error)
    return None


def _to_failure(error: Exception) -> ServiceError:
    """The error of an answer whose computation raised `error`. A lack of memory passes, any other fault comes again."""
    _log_error(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return Unavailable("There was not enough memory for this answer; try again, or ask for a shorter one.")
    return Uncomputable("The model fails on this request each time; change the prompt, or ask another version.")


def _step(group: DecodingGroup) -> None:
    """Decode one token for every answer of a group. Answers that end leave before the next token is computed."""
    logits = group.decoding.logits
    finite = torch.isfinite(logits.amax(-1)).tolist()  # NaN and +inf show in the largest
    best = greedy_tokens(logits).tolist()  # for all at once: each transfer from a device waits for it
    tokens = [_next_token(answer, logits[row], best[row], is_finite=finite[row]) for row, answer in enumerate(group.answers)]
    remaining = [(row, token) for row, token in enumerate(tokens) if token is not None]
    has_shrunk = len(remaining) < len(group.answers)
    group.answers = [group.answers[row] for row, _ in remaining]
    if remaining and has_shrunk:
        group.decoding.keep([row for row, _ in remaining])
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
        answer.fail(_to_failure(error))
    return None


def _fail(answers: Sequence[AnswerStream], error: Exception) -> None:
    for answer in answers:
        answer.fail(error)


def _log_error(error: Exception) -> None:
    """Log the class of an error alone, because its message may contain a user's text."""
    log.error("decoding failed: %s", type(error).__name__)
