"""Where the window, the deferred edits and the figures of the head stand now: what the cadence decides on."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain import liveset
from service.domain.cadence import Standing
from service.domain.edit import EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.domain.version import Version, VersionKind
from service.lifecycle.parts import Parts
from service.store import edits, heads, jobs, measurements, versions
from service.store import tables as t
from service.store.edits import chunks

LITTLE_NEWS = 4  # after a retrain that failed or was cancelled, so many other edits in its snapshot make another worth trying


def standing_of(connection: Connection, parts: Parts) -> Standing:
    """Read the standing. A retrain that failed or was cancelled counts until its snapshot would be another by a few edits, or
    without one that was taken back since.
    """
    head = heads.read(connection)
    version = versions.get(connection, head.version)
    live_set = versions.live_set(connection, head.version)
    deferred, oldest = connection.execute(
        sa.select(sa.func.count(), sa.func.min(t.edits.c.created_at)).where(t.edits.c.status == EditStatus.DEFERRED)
    ).one()
    untried = [item.edit_id for item in live_set.window if item.is_live and not item.held]
    last = jobs.page(connection, limit=1, kind="retrain", brief=True)
    failed = bool(last) and last[0].status in ("failed", "cancelled")
    if failed:
        tried = set(jobs.get(connection, last[0].id).edit_ids)
        news = tried ^ {item.edit_id for item in snapshot(connection, live_set)}
        failed = len(news) < LITTLE_NEWS and not edits.retracted(connection, tried)
    now = parts.clock()
    return Standing(
        window=version.window,
        untried=len(untried),
        oldest_untried_s=_age(_first_applied(connection, untried), now),
        deferred=deferred,
        oldest_deferred_s=_age(oldest, now),
        taken_back=any(item.tombstone for item in live_set.window),
        retrain_failed=failed,
        retrain_underway=bool(last) and last[0].is_active,
        tensors=bool(live_set.held),
        minors=version.minors,
        since_major_s=None if version.major_at is None else _age(version.major_at, now),
        **_figures(connection, version),
    )


def snapshot(connection: Connection, live_set: LiveSet | None = None) -> tuple[LiveItem, ...]:
    """What a retrain that begins now would train on: the live set and the deferred edits, the latest of each key, nothing taken
    back.
    """
    if live_set is None:
        live_set = versions.live_set(connection, heads.read(connection).version)
    waiting = connection.execute(sa.select(t.edits.c.id).where(t.edits.c.status == EditStatus.DEFERRED)).scalars().all()
    candidates = [*live_set.live, *edits.items(connection, waiting)]
    asked = edits.retracted(connection, [item.edit_id for item in candidates])
    return liveset.latest_per_key(item for item in candidates if item.edit_id not in asked)


def tensor_scores(connection: Connection, version: Version, *, minors: int) -> Mapping[str, Any]:
    """What the tensors of the retrain so many minor ones after the major one came to, without any window: of those that lead to
    a version. Empty where that is not known, and 1 by definition for the base's own tensors.
    """
    if version.major_at is None:
        return {"canary": 1.0}
    same = (t.versions.c.kind == VersionKind.LOCFT, t.versions.c.major_at == version.major_at, t.versions.c.minors == minors)
    newest = sa.select(t.versions.c.scores).where(*same, t.versions.c.number <= version.number)
    scores = connection.execute(newest.order_by(t.versions.c.number.desc()).limit(1)).scalar_one_or_none()
    found: Mapping[str, Any] = (scores or {}).get("tensors", {})
    return found


def _figures(connection: Connection, version: Version) -> dict[str, float | None]:
    measured = measurements.latest(connection, version.number)
    known = {name: measured[name].score for name in measured}
    then = tensor_scores(connection, version, minors=version.minors)
    return {
        "retention": known.get(measurements.RETENTION, version.scores.get("retention")),
        "retention_then": then.get("retention"),
        "locality": known.get(measurements.OUTSIDE, version.scores.get("canary")),
        "locality_then": then.get("canary"),
        "locality_at_major": tensor_scores(connection, version, minors=0).get("canary"),
        "capability": known.get(measurements.CAPABILITY),
    }


def _first_applied(connection: Connection, edit_ids: list[str]) -> datetime | None:
    since = sa.func.coalesce(t.edits.c.applied_at, t.edits.c.created_at)
    found = [
        connection.execute(sa.select(sa.func.min(since)).where(t.edits.c.id.in_(some))).scalar() for some in chunks(edit_ids)
    ]
    return min((one for one in found if one is not None), default=None)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
