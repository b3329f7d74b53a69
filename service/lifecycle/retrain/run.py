"""Retraining: LocFT-BF over a snapshot of the live set, beside the head, while edits go on being applied.

A *major* retrain starts from the base, a *minor* one from the tensors of the head. The result counts only if every edit of the
snapshot is still wanted or a newer one of its fact is live, and a minor one only if the head still has the tensors it began at:
otherwise it is trained again, never published, so that no published retrain was trained on an edit that had been taken back.
Whatever ends a retrain without a publication leaves the head as it was, and says why in its job.
"""

import threading
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.engine import Connection

from service.domain import cadence
from service.domain.cadence import Mode
from service.domain.errors import Conflict, Refused, Stale, Unavailable
from service.domain.liveset import LiveSet
from service.editors.protocol import FitCancelled, Fitted
from service.lifecycle.cadence_inputs import snapshot, standing_of
from service.lifecycle.context import Parts
from service.lifecycle.crash_points import point
from service.lifecycle.fitting import Turn, Watch, items_of, known_edits, standpoint
from service.lifecycle.retrain import snapshots
from service.lifecycle.retrain.catch_up import Again, TooCostly, catch_up_and_publish
from service.lifecycle.retrain.newcomers import Newcomers
from service.lifecycle.retrain.retries import wait_to_publish
from service.lifecycle.retrain.snapshots import Course
from service.lifecycle.settings import SERVICE
from service.store import events, heads, idempotency, jobs, versions
from service.store.clock import now_of
from service.store.database import Store
from service.store.events import Event
from service.store.heads import FenceLost
from service.store.idempotency import Keyed, unkeyed
from service.store.jobs import Job

ELSEWHERE = "the head's tensors lie elsewhere than the settings name: it has to be a major one"
NOTHING_NEW = "there is nothing new to retrain: the tensors have every live edit; a major one can still be asked for"
TRAINED = 0.9  # of the progress, when what is live beyond the snapshot is still to be fitted
NOTHING_LEFT = "nothing is left to train on, and nothing to undo"
CHANGED = "the head or edits of its snapshot changed again and again"


class Pressed:
    """Says that a retrain that is about to be published lost too often to edits: while it is set, edits are accepted but not
    applied.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask applying to pause."""
        self._event.set()

    def clear(self) -> None:
        """Let applying go on."""
        self._event.clear()


@dataclass
class Try:
    """How often the retrain of one job had to begin again, and how often its publication lost to another."""

    restarts: int = 0
    losses: int = 0
    newcomers: Newcomers = field(default_factory=Newcomers)


def request_retrain(
    store: Store,
    *,
    author: str,
    reason: str | None = None,
    mode: Mode | None = None,
    keyed: Keyed | None = None,
    now: datetime | None = None,
) -> Job:
    """Queue a retrain, or return the one that is queued already, or that runs on all there is to train on; a queued one becomes
    major if a major one is asked for.

    Without a mode the worker chooses when it begins. A `keyed` request that was answered before is answered with that job as it
    stands now. Raises Conflict if there is nothing to train on and nothing to undo, or for anybody's but a major one, nothing
    that the tensors do not have.
    """
    asked = keyed or unkeyed(author)
    with store.write() as connection:
        heads.lock(connection)
        now = now or now_of(connection)
        if (answer := idempotency.recall(connection, asked)) is not None:
            return jobs.get(connection, answer["job"])
        job = _request(connection, author=author, reason=reason, mode=mode, now=now)
        idempotency.remember(connection, asked, {"job": job.id}, now=now)
        point("request.before_commit")
    point("request.after_commit")
    return job


def _request(connection: Connection, *, author: str, reason: str | None, mode: Mode | None, now: datetime) -> Job:
    waiting = jobs.active(connection, "retrain", "queued")
    if waiting is not None:
        if mode == "major" and waiting.mode != "major":
            jobs.say(connection, waiting.id, f"{author} asked for it to be major", now)
            jobs.note(connection, waiting.id, mode=mode, reason=reason)
        return jobs.get(connection, waiting.id)
    live_set = versions.live_set(connection, heads.read(connection).version)
    wanted = {item.edit_id for item in snapshot(connection, live_set)}
    running = jobs.active(connection, "retrain", "running")
    if running is not None and _comes_to_it(running, wanted, mode):
        return running
    if not wanted and not live_set.held:
        raise Conflict("there is nothing to retrain: no edit is live or deferred")
    if mode != "major" and author != SERVICE and not live_set.window and wanted <= live_set.ids:
        raise Conflict(NOTHING_NEW)
    job = jobs.insert(connection, "retrain", mode=mode, reason=reason, author=author, now=now)
    jobs.say(connection, job.id, f"asked for by {author}" + (f": {reason}" if author == SERVICE and reason else ""), now)
    events.write(connection, [Event(type="retrain.requested", job_id=job.id, author=author)], now=now)
    return jobs.get(connection, job.id)


def _comes_to_it(running: Job, wanted: Set[str], mode: Mode | None) -> bool:
    """Whether a retrain that runs will have done what is asked for now."""
    kind = mode != "major" or running.mode == "major"
    return kind and running.cancel_asked_at is None and wanted <= set(running.edit_ids)


def queue_if_due(parts: Parts) -> bool:
    """Queue a retrain if the cadence asks for one; whether it did."""
    with parts.store.read() as connection:
        due = cadence.due(standing_of(connection, parts), parts.settings.cadence)
    if due is not None:
        request_retrain(parts.store, author=SERVICE, reason=due.reason, mode=due.mode, now=parts.clock())
    return due is not None


def retrain(parts: Parts, turn: Turn, pressed: Pressed) -> bool:
    """Do the retrain that is queued or was left unfinished; whether there was one. Ends published, or failed or cancelled with
    a reason in its row.
    """
    job = snapshots.claim(parts, turn)
    if job is None:
        return False
    tries = Try()
    try:
        while job is not None and job.status == "running":
            if _once(parts, turn, job, tries, pressed):
                break
            job = _begin_again(parts, turn, tries)
    except FitCancelled:
        if turn.is_over() or not snapshots.end_if_cancelled(parts, turn):
            raise
    return True


def _begin_again(parts: Parts, turn: Turn, tries: Try) -> Job | None:
    """Another snapshot for the running job; if this happened too often, the job fails."""
    tries.restarts += 1
    if tries.restarts > parts.settings.restarts:
        snapshots.fail(parts, turn, CHANGED)
        return None
    return snapshots.again(parts, turn, tries.newcomers.put_off)


def _once(parts: Parts, turn: Turn, job: Job, tries: Try, pressed: Pressed) -> bool:
    """Train on the job's snapshot and publish; False if the head moved away from it meanwhile, so that it has to begin again."""
    is_cancelled = snapshots.cancel_of(parts, job)
    watch = Watch(parts, turn, job.id, "retrain.middle", edits_first=True, asked_to_stop=is_cancelled)
    course = snapshots.course_of(parts, job)
    if not course.items and not standpoint(parts).live_set.items:  # a rollback to the base came first
        snapshots.fail(parts, turn, NOTHING_LEFT)
        return True
    try:
        trained = _train(parts, job, course, watch)
    except Refused as refused:
        if course.mode == "minor" and refused.field == "start":
            snapshots.make_major(parts, turn, ELSEWHERE)
            return False
        raise
    point("retrain.before_publish")
    while True:
        try:
            return _publish(parts, turn, job, course, trained, watch, tries, pressed, is_cancelled)
        except Again as again:
            snapshots.say(parts, job, again.reason)
            return False
        except TooCostly as refused:
            tries.newcomers.narrow(parts, job, refused.newcomers, str(refused))
            return False
        except (Unavailable, OSError) as error:  # what was trained is good: only its publication has to be tried again
            if not wait_to_publish(parts, turn, error, watch.hooks()):
                return True


def _train(parts: Parts, job: Job, course: Course, watch: Watch) -> Fitted | None:
    if not course.items:
        return None
    known = known_edits(parts, LiveSet(), [item.edit_id for item in course.items])
    assert job.seed is not None
    trained = parts.editors.locft(items_of(course.items, known), course.start, job.seed, watch.hooks().within(0.0, TRAINED))
    snapshots.say(parts, job, f"trained on {len(course.items)} edits: {_said(trained)}")
    return trained


def _said(trained: Fitted) -> str:
    figures = [
        f"{name.replace('_', ' ')} {f'{value:.3f}' if isinstance(value, float) else value}"
        for name, value in sorted(trained.scores.items())
    ]
    return ", ".join([*figures, f"{len(trained.lost)} not taken"])


def _publish(
    parts: Parts,
    turn: Turn,
    job: Job,
    course: Course,
    trained: Fitted | None,
    watch: Watch,
    tries: Try,
    pressed: Pressed,
    is_cancelled: Callable[[], bool],
) -> bool:
    """Catch up with the head and publish on it, as often as it moves; False if that will not do any more.

    Applying pauses once this was lost too often, and goes on before anything else is trained.
    """
    try:
        while snapshots.stands(parts, job, course, stand := standpoint(parts)):
            if tries.losses >= parts.settings.patience:
                pressed.set()
            try:
                if catch_up_and_publish(parts, turn, job, course, trained, watch, stand):
                    tries.newcomers.end(parts, turn, job)
                return True
            except FenceLost:
                raise
            except Stale:
                if is_cancelled():
                    raise FitCancelled("the retrain was cancelled") from None
                tries.losses += 1
                if tries.losses > parts.settings.restarts:
                    tries.restarts = parts.settings.restarts  # the next one is one too many
                    return False
    finally:
        pressed.clear()
    raise Again("an edit of the snapshot left the live set, or the head got other tensors")
