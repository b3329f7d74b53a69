"""What the worker's verbs share: the fence they act under, the seed of a job, what a fit is asked, and what its failure means."""

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.domain.edit import Edit, EditRequest
from service.domain.errors import Corrupt, Unavailable, Unreadable
from service.domain.liveset import Carrier, LiveItem, LiveSet
from service.domain.version import Head, Version
from service.editors.protocol import Fitted, Hooks, Item
from service.lifecycle.context import Parts
from service.lifecycle.crash_points import point
from service.lm.overlay import Overlay
from service.store import edits, heads, jobs, versions

PROGRESS_S = 0.5  # between two writes of a job's progress
EDITS_FIRST_S = 1.0  # longest wait of a retrain for a fit of edits, which takes about so long; unwaited for, 2.3 times that
WORKS_S = 0.5  # of a retrain between two such waits, so that a stream of edits does not stop it


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Turn:
    """A worker's right to act: its fence, and whether it should stop (the process ends, or the lease was lost)."""

    fence: int
    is_over: Callable[[], bool] = _never


@dataclass(frozen=True)
class Standpoint:
    """What a job works on: the head with its version row and live set, as one transaction or read saw them."""

    head: Head
    version: Version
    live_set: LiveSet


def standpoint(parts: Parts) -> Standpoint:
    """The head as it is now, from one consistent look (the head is read again, in case it moved while its live set was read)."""
    while True:
        with parts.store.read() as connection:
            head = heads.read(connection)
            found = Standpoint(head, versions.get(connection, head.version), versions.live_set(connection, head.version))
            if heads.read(connection).epoch == head.epoch:
                return found


def overlay_of_head(parts: Parts, version: Version) -> Overlay:
    """What a fit starts from: the head's overlay, from memory where this process answers with it. Raises Unreadable if it cannot
    be had, also for a damaged one: that is no fault of what is fitted, and the head will be another soon.
    """
    current = parts.follower.current
    if current.version == version.number:
        return current.overlay
    try:
        return parts.overlays.of(version)
    except Corrupt as damaged:
        raise Unreadable("the checkpoint of the head is damaged; it is being replaced") from damaged


def scores_of(fitted: Fitted | None, live_set: LiveSet) -> dict[str, Any]:
    """The scores of a fit as a version keeps them, with the ids of live edits that it does not answer, if there are any."""
    if fitted is None:
        return {}
    lost = sorted(edit_id for edit_id in set(fitted.lost) if (item := live_set.get(edit_id)) is not None and item.is_live)
    scores: dict[str, Any] = dict(fitted.scores)
    if len(lost) < len(set(fitted.lost)):  # some of what was lost was left out, and counts no more
        scores["retention"] = 1.0 - len(lost) / max(1, len(live_set.window) + len(settled_given(live_set)))
    return {**scores, **({"lost": lost} if lost else {})}


def seed_of(asked: Iterable[EditRequest], failures: int = 0) -> int:
    """A seed from what a job is asked to learn, in order. A repetition after a crash has the same; one after a failed fit
    another.

    It comes from the contents, not the ids, so that two stores that were told the same make the same bytes.
    """
    digest = hashlib.sha256(str(failures).encode())
    for edit in asked:
        digest.update(hashlib.sha256(edit.prompt.encode()).digest() + hashlib.sha256(edit.target.encode()).digest())
    return int.from_bytes(digest.digest()[:8]) >> 2


def items_of(entries: Sequence[LiveItem], known: Mapping[str, Edit]) -> list[Item]:
    """What an editor is given for items of a live set."""
    return [
        Item(known[item.edit_id], item.answer or "", tombstone=True)
        if item.tombstone
        else Item(known[item.edit_id], known[item.edit_id].target, settled=item.carrier is Carrier.TENSORS)
        for item in entries
    ]


def settled_given(live_set: LiveSet) -> tuple[LiveItem, ...]:
    """The settled edits that a fit of the window is given to leave as they are: all, or a sample that is the same every time."""
    return live_set.settled_given


def known_edits(parts: Parts, live_set: LiveSet, more: Iterable[str] = ()) -> dict[str, Edit]:
    """What a fit of a live set's window is given, and more, by id. Never the whole of a large live set."""
    given = {item.edit_id for item in (*live_set.window, *settled_given(live_set))}
    with parts.store.read() as connection:
        found = edits.many(connection, given | set(more))
    return {edit.id: edit for edit in found}


@dataclass
class Watch:
    """Makes the hooks of one job: its progress is written to its row, and its fit stops when it is in vain."""

    parts: Parts
    turn: Turn
    job_id: str
    fault: str  # the named point in the middle of this kind of fit
    in_vain: Callable[[], bool] = _never
    edits_first: bool = False
    asked_to_stop: Callable[[], bool] = _never  # looked at now and then: it may take a look at the database
    most_s: float = math.inf  # seconds from when this was made until a fit is overdue
    _began: float = field(default_factory=lambda: time.monotonic())
    _written: float = field(default=0.0)
    _looked: float = field(default=0.0)
    _stage: str = field(default="")
    _steps: int = field(default=0)
    _waited: float = field(default=0.0)
    _furthest: float = field(default=0.0)

    def hooks(self) -> Hooks:
        """Hooks for one fit."""
        return Hooks(give_way=self._give_way, progress=self._progress, cancelled=self._is_cancelled)

    @property
    def is_overdue(self) -> bool:
        """Whether the job has taken longer than it may."""
        return time.monotonic() - self._began > self.most_s

    def _is_cancelled(self) -> bool:
        if self.turn.is_over() or self.in_vain() or self.is_overdue:
            return True
        now = time.monotonic()
        if now - self._looked < self.parts.settings.look_s:
            return False
        self._looked = now
        try:
            return self.asked_to_stop()
        except Unavailable:
            return False  # a fit does not end because the database is away for a moment

    def _give_way(self) -> None:
        self._steps += 1
        if self._steps == 2:
            point(self.fault)
        if self.edits_first:
            self._let_edits_go_first()
        self.parts.give_way()

    def _let_edits_go_first(self) -> None:
        """Wait for a fit of edits at the first step beside it; after that come WORKS_S of steps, whatever edits there are."""
        if not self.parts.no_edit_is_fitted.is_set() and time.monotonic() - self._waited >= WORKS_S:
            self.parts.no_edit_is_fitted.wait(EDITS_FIRST_S)
            self._waited = time.monotonic()

    def _progress(self, share: float, stage: str) -> None:
        self._furthest = max(self._furthest, min(1.0, float(share)))  # a job of several fits goes on where the last one ended
        now = time.monotonic()
        if now - self._written >= PROGRESS_S:
            self._written = now
            with contextlib.suppress(Unavailable), self.parts.store.write() as connection:
                jobs.note(connection, self.job_id, progress=self._furthest, stage=stage[:200])
                if stage != self._stage:
                    jobs.say(connection, self.job_id, stage[:200], self.parts.clock())
            self._stage = stage
