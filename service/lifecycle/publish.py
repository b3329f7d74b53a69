"""Publishing a candidate: first its bytes are saved; then one transaction makes it the head, if the worker's fence and the
candidate's parent still hold.

After the commit this process swaps to the new head, and announces the edits after that. So a client that hears of a live edit
finds it in the next answer.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from service.domain.acceptance import Decision
from service.domain.cadence import Mode
from service.domain.concessions import with_concessions
from service.domain.errors import Stale, Unavailable
from service.domain.liveset import LiveSet
from service.domain.version import Head, Version, VersionStatus
from service.lifecycle.context import EditingContext
from service.lifecycle.crash_points import crash_point
from service.lifecycle.fenced import fenced_write
from service.lifecycle.head_follower import PublishedHead
from service.lifecycle.measured_figures import acceptance_figures
from service.lifecycle.stated_edits import write_stated
from service.lifecycle.statuses import write_statuses
from service.lm.overlay import Overlay
from service.store import edits, events, heads, jobs, measurements, stated_edits, versions
from service.store.edits import StatusChange
from service.store.events import Event
from service.store.heads import FenceLost

log = structlog.get_logger("errata.publish")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A fitted overlay with all that its publication changes. None of the `required_edits` may have been retracted meanwhile.
    `overruled` is the refusal that is overruled for an edit that is to be accepted anyway.
    """

    parent: Head
    fence: int
    kind: str
    overlay: Overlay
    live_set: LiveSet
    changes: Sequence[StatusChange]
    author: str
    reason: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    required_edits: Collection[str] = ()
    mode: Mode | None = None  # of a retrain
    item_count: int = 0  # how many items the scores speak of
    neutral_sentences: int | None = None  # that its fit might use
    overruled: Decision | None = None


def publish(context: EditingContext, candidate: Candidate) -> Version:
    """Make a candidate the head.

    Raises Stale if the head moved, the job was cancelled or a required edit was retracted, and FenceLost if another worker took
    over. Then nothing was changed.
    """
    digest = context.checkpoints.save(candidate.overlay)
    crash_point("publish.after_save")
    try:
        return _publish(context, candidate, digest)
    except FenceLost:
        raise  # another worker may be about to publish the same bytes
    except Stale:
        _delete_unpublished(context, candidate.fence, digest)
        raise


def _publish(context: EditingContext, candidate: Candidate, digest: str | None) -> Version:
    now = context.clock()
    with fenced_write(context, candidate.fence) as (connection, head):
        if heads.find_overlay_epoch(connection, head.epoch) != heads.find_overlay_epoch(connection, candidate.parent.epoch):
            raise Stale("the head has moved since the fit began")
        if candidate.job_id is not None and jobs.is_cancel_requested(connection, candidate.job_id):
            raise Stale("the job was cancelled meanwhile")
        if edits.find_retracted(connection, candidate.required_edits):
            raise Stale("an edit of the fit was taken back meanwhile")
        parent = versions.get(connection, head.version)
        moved = heads.move(connection, head, fence=candidate.fence, reason=candidate.reason, author=candidate.author, now=now)
        version = Version(
            number=moved.version,
            kind=candidate.kind,
            status=VersionStatus.PUBLISHED,
            parent=head.version,
            digest=digest,
            created_at=now,
            author=candidate.author,
            reason=candidate.reason,
            edits_counted=len(candidate.live_set.live),
            window=len(candidate.live_set.window),
            scores=with_concessions(candidate.scores, parent.scores, candidate.overruled),
            neutral_sentences=candidate.neutral_sentences,
            **_retrain_history(candidate.mode, parent, now),
        )
        versions.insert(connection, version, candidate.live_set, fence=candidate.fence, job_id=candidate.job_id)
        figures = acceptance_figures(candidate.scores, item_count=candidate.item_count)
        measurements.insert(connection, moved.version, "gate", figures, now)
        write_statuses(
            connection, context, candidate.changes, author=candidate.author, version=moved.version, job_id=candidate.job_id
        )
        write_stated(connection, context, version, candidate.live_set, job_id=candidate.job_id)
        stated = stated_edits.read(connection, moved.version)
        started_at = None
        if candidate.job_id is not None:
            started_at = jobs.get(connection, candidate.job_id, brief=True).started_at
            jobs.finish(connection, candidate.job_id, version=moved.version, now=now)
        published = Event(
            type="version.published",
            author=candidate.author,
            version=moved.version,
            job_id=candidate.job_id,
            data={name: version.scores[name] for name in ("accepted", "refused") if name in version.scores},
        )
        events.write(connection, [published], now=now)
        crash_point("publish.before_commit")
    crash_point("publish.after_commit")
    context.follower.swap(PublishedHead(moved.version, moved.epoch, candidate.overlay, moved.epoch, stated))
    context.announcer.announce(change.edit_id for change in candidate.changes)
    counts: dict[str, int | None] = {"edits": version.edits_counted, "window": version.window, "changes": len(candidate.changes)}
    seconds = None if started_at is None else round((now - started_at).total_seconds(), 2)
    counts |= {"neutral_sentences": version.neutral_sentences}
    log.info("published", version=version.number, kind=version.kind, job=candidate.job_id, **counts, seconds=seconds)
    if candidate.overruled is not None:
        forced = [change.edit_id for change in candidate.changes if change.accepted_anyway]
        log.warning("accepted anyway", version=version.number, edits=forced, **version.scores["refused"])
    return version


def _delete_unpublished(context: EditingContext, fence: int, digest: str | None) -> None:
    """Delete the checkpoint of a candidate that was not published, if no version names it. Under the fence no other worker
    publishes meanwhile.
    """
    with contextlib.suppress(FenceLost, Unavailable, OSError), fenced_write(context, fence) as (connection, _):
        if digest is not None and not versions.has_digest(connection, digest):
            context.checkpoints.remove(digest)


def _retrain_history(mode: Mode | None, parent: Version, now: datetime) -> dict[str, Any]:
    """The number of minor retrains since the major retrain of a version's tensors, and the time of that major retrain."""
    if mode == "major":
        return {"minors": 0, "major_at": now}
    return {"minors": parent.minors + (mode == "minor"), "major_at": parent.major_at}
