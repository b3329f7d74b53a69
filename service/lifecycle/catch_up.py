"""The end of a retrain: what is live beyond its snapshot is fitted on top of the new tensors by BaFT, and both are published.

What the tensors did not take becomes part of the new window too. Only a head that has not moved since is published on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain import gate, liveset
from service.domain.edit import EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import VersionKind
from service.editors.protocol import Fitted
from service.lifecycle.parts import Parts
from service.lifecycle.publish import Candidate, live_changes, publish
from service.lifecycle.refit import coming_back, going
from service.lifecycle.snapshots import Course
from service.lifecycle.standing import tensor_scores
from service.lifecycle.work import Standpoint, Turn, Watch, items_of, known_edits, scores_of, seed_of, settled_given, standpoint
from service.lm.overlay import EMPTY, Overlay
from service.store import edits, events, heads, jobs
from service.store.edits import Change
from service.store.events import Event
from service.store.jobs import Job

NOT_HELD = "neither the retrain nor BaFT on top of it took this edit"
LOST = "it was lost when the window was fitted on the new tensors; it waits for the next retrain"


class Again(Exception):
    """What was trained cannot be published any more, and another snapshot may do better."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Window:
    """The new window as it was fitted: `dropped` are the live edits that it does not hold, and nothing else does."""

    fitted: Fitted | None
    live_set: LiveSet
    dropped: tuple[str, ...] = ()


def catch_up_and_publish(parts: Parts, turn: Turn, job: Job, course: Course, trained: Fitted | None, watch: Watch) -> None:
    """Fit what is live beyond the snapshot on top of the new tensors and publish both, or end the job as the gate refused it.

    Raises Stale if the head moved; Again if the new window would be larger than a window may be.
    """
    stand = standpoint(parts)
    ids, keys = {item.edit_id for item in course.items}, {item.key: item.edit_id for item in course.items}
    with parts.store.read() as connection:
        gone = going(connection, stand.live_set)
        standing = [*(item for item in stand.live_set.live if item.edit_id not in gone), *coming_back(connection, gone)]
    arrived = [item for item in standing if item.edit_id not in ids and item.key not in keys]
    superseded = {item.edit_id: keys[item.key] for item in standing if item.edit_id not in ids and item.key in keys}
    tensors = EMPTY if trained is None else trained.overlay
    lost = [] if trained is None else [edit_id for edit_id in trained.lost if edit_id in ids]
    live_set = _consolidated(course, arrived, lost)
    if _is_too_long(parts, live_set, arrived):
        error = f"it lost {len(lost)} edits, more than a window may hold beside the rest"
        _refuse(parts, turn, job, [error])
        return
    window = _window(parts, tensors, live_set, job, watch)
    scores = _scores(parts, stand, course, trained, window)
    reasons = _judge(parts, stand, course, window, scores)
    if reasons:
        _refuse(parts, turn, job, reasons)
        return
    with parts.store.read() as connection:
        superseded = {**edits.deferred_before(connection, course.items), **superseded}
    changes = [Change(edit_id=edit_id, status=EditStatus.RETRACTED) for edit_id in gone]
    changes += [_dropped(edit_id, edit_id in ids) for edit_id in window.dropped]
    reports = _reports(trained, window, lost)
    changes += live_changes(stand.live_set, window.live_set, superseded=superseded, reports=reports)
    publish(
        parts,
        Candidate(
            parent=stand.head,
            fence=turn.fence,
            kind=VersionKind.LOCFT,
            overlay=tensors if window.fitted is None else window.fitted.overlay,
            live_set=window.live_set,
            changes=changes,
            author=job.author,
            reason=job.reason,
            scores=scores,
            job_id=job.id,
            standing=[*ids, *(item.edit_id for item in arrived)],
            mode=course.mode,
            asked=len(course.items) if window.fitted is None else _asked(window.live_set),
        ),
    )


def _consolidated(course: Course, arrived: Sequence[LiveItem], lost: Collection[str]) -> LiveSet:
    if course.mode == "major":
        return liveset.consolidate(course.items, arrived, lost)
    return liveset.consolidate_on(course.start_set, course.items, arrived, lost)


def _is_too_long(parts: Parts, live_set: LiveSet, arrived: Sequence[LiveItem]) -> bool:
    """Whether the edits of the new window are too many, whatever a new snapshot would do; raises Again if it would help."""
    edits_of_it = [item for item in live_set.window if item.is_live]
    if len(edits_of_it) <= parts.settings.cadence.hard:
        return False
    if arrived:
        raise Again("with the edits that arrived meanwhile the new window would be too long")
    return True


def _window(parts: Parts, tensors: Overlay, live_set: LiveSet, job: Job, watch: Watch) -> Window:
    """Fit the window of a retrained version; what it does not hold leaves the live set (the tensors did not take it either).

    After the last round the fit counts as it is, without what it lost.
    """
    known = known_edits(parts, live_set, [item.edit_id for item in live_set.items if item.tombstone])
    unsaid = [item.edit_id for item in live_set.items if item.tombstone and item.answer is None]
    live_set = liveset.with_answers(live_set, {edit_id: parts.editors.base_answer(known[edit_id]) for edit_id in unsaid})
    dropped: list[str] = []
    fitted: Fitted | None = None
    for _ in range(parts.settings.rounds):
        if not live_set.window:
            return Window(None, live_set, tuple(dropped))
        asked = items_of(live_set.window, known)
        settled = items_of(settled_given(live_set), known)
        fitted = parts.editors.baft(tensors, asked, settled, seed_of([item.edit for item in asked], job.failures), watch.hooks())
        lost = [item.edit_id for item in live_set.window if item.is_live and item.edit_id in fitted.lost]
        dropped += lost
        live_set = LiveSet(tuple(item for item in live_set.items if item.edit_id not in lost))
        if not lost:
            break
    return Window(fitted, live_set, tuple(dropped))


def _scores(parts: Parts, stand: Standpoint, course: Course, trained: Fitted | None, window: Window) -> dict[str, Any]:
    """The scores of the new version; those of its tensors alone; and after minor retrains, how far these had drifted."""
    scores = scores_of(window.fitted or trained, window.live_set)
    if trained is not None:
        scores["tensors"] = {name: trained.scores[name] for name in ("canary", "retention") if name in trained.scores}
    if trained is not None and course.mode == "major" and stand.version.minors:
        scores["drift"] = _drift(parts, stand, trained)
    return scores


def _drift(parts: Parts, stand: Standpoint, trained: Fitted) -> dict[str, Any]:
    """How far the tensors of minor retrains were from those that a major one comes to: relative Frobenius distances, and the
    figures of both without their windows.
    """
    head = parts.overlays.of(stand.version)
    with parts.store.read() as connection:
        minor = tensor_scores(connection, stand.version, minors=stand.version.minors)
    of_both = {
        name: {"minor": minor.get(name), "major": trained.scores.get(name)}
        for name in ("canary", "retention")
        if name in trained.scores
    }
    return {
        "minors": stand.version.minors,
        "from_head": parts.editors.distance(trained.overlay, head),
        "from_base": parts.editors.distance(trained.overlay, EMPTY),
        "head_from_base": parts.editors.distance(head, EMPTY),
        **of_both,
    }


def _judge(parts: Parts, stand: Standpoint, course: Course, window: Window, scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the gate refuses the retrain; nothing if it does not."""
    limits = parts.settings.gate
    moved = [item for item in course.items if not _was_held(stand, item)]
    answered = stand.live_set.ids - set(stand.version.scores.get("lost", ()))
    lost = gate.losses(len(answered & set(window.dropped)), len(answered), limits)
    return (*gate.decide(scores, stand.version.scores, edits=len(moved), limits=limits).reasons, *lost.reasons)


def _was_held(stand: Standpoint, item: LiveItem) -> bool:
    was = stand.live_set.get(item.edit_id)
    return was is not None and was.held


def _reports(trained: Fitted | None, window: Window, lost: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Of what the tensors did not take, the fit that did take it is reported."""
    reports = {} if trained is None else dict(trained.reports)
    if window.fitted is not None:
        reports |= {edit_id: window.fitted.reports[edit_id] for edit_id in lost if edit_id in window.fitted.reports}
    return {edit_id: report for edit_id, report in reports.items() if edit_id not in window.dropped}


def _asked(live_set: LiveSet) -> int:
    """How many items the fit of a window was given."""
    return len(live_set.window) + len(settled_given(live_set))


def _dropped(edit_id: str, was_trained: bool) -> Change:
    """What becomes of an edit that the new version does not answer: it fails if the retrain had it, else it waits for the next
    one.
    """
    if was_trained:
        return Change(edit_id=edit_id, status=EditStatus.FAILED, error=NOT_HELD)
    return Change(edit_id=edit_id, status=EditStatus.DEFERRED, error=LOST)


def _refuse(parts: Parts, turn: Turn, job: Job, reasons: Sequence[str]) -> None:
    with parts.store.write() as connection:
        heads.lock(connection)
        heads.check_fence(connection, turn.fence)
        now = parts.clock()
        jobs.finish(connection, job.id, error="; ".join(reasons), now=now)
        happened = Event(type="candidate.refused", job_id=job.id, author=job.author, data={"reasons": list(reasons)})
        events.write(connection, [happened], now=now)
