"""Where the window and the deferred edits stand now: what the cadence decides on."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain import liveset
from service.domain.cadence import Standing
from service.domain.edit import EditStatus
from service.domain.liveset import LiveItem, LiveSet
from service.lifecycle.parts import Parts
from service.store import edits, heads, jobs, versions
from service.store import tables as t

LITTLE_NEWS = 4  # after a failed retrain, so many other edits in its snapshot make another one worth trying


def standing_of(connection: Connection, parts: Parts) -> Standing:
    """Read the standing. A retrain that failed counts until its snapshot would be another by a few edits."""
    head = heads.read(connection)
    version = versions.get(connection, head.version)
    deferred, oldest = connection.execute(
        sa.select(sa.func.count(), sa.func.min(t.edits.c.created_at)).where(t.edits.c.status == EditStatus.DEFERRED)
    ).one()
    here = t.version_edits.c.version == head.version
    untried = connection.execute(
        sa.select(sa.func.count()).where(
            here,
            t.version_edits.c.role == liveset.Role.LIVE,
            t.version_edits.c.carrier == liveset.Carrier.WINDOW,
            sa.not_(t.version_edits.c.held),
        )
    ).scalar_one()
    tombstones = connection.execute(
        sa.select(sa.func.count()).where(here, t.version_edits.c.role == liveset.Role.TOMBSTONE)
    ).scalar_one()
    last = jobs.page(connection, limit=1, kind="retrain")
    failed = bool(last) and last[0].status == "failed"
    if failed:
        failed = len(set(last[0].edit_ids) ^ {item.edit_id for item in snapshot(connection)}) < LITTLE_NEWS
    return Standing(
        window=version.window,
        untried=untried,
        deferred=deferred,
        oldest_deferred_s=(parts.clock() - oldest).total_seconds() if oldest is not None else 0.0,
        taken_back=tombstones > 0,
        retrain_failed=failed,
        retrain_underway=bool(last) and last[0].is_active,
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
