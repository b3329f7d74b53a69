"""Rows of versions and their live sets."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.errors import NotFound
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role
from service.domain.version import Version, VersionKind, VersionStatus
from service.store import tables as t

LARGEST = 2**63 - 1  # of a database's whole numbers


def get(connection: Connection, number: int) -> Version:
    """One version. Raises NotFound."""
    row = None
    if 0 <= number <= LARGEST:
        row = connection.execute(sa.select(t.versions).where(t.versions.c.number == number)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no version with this number", field="version")
    return _version(row)


def page(connection: Connection, *, limit: int, before: int | None = None) -> list[Version]:
    """Versions, newest first, with numbers under `before`."""
    select = sa.select(t.versions).order_by(t.versions.c.number.desc()).limit(limit)
    if before is not None:
        select = select.where(t.versions.c.number < before)
    return [_version(row) for row in connection.execute(select).mappings()]


def insert(connection: Connection, version: Version, live_set: LiveSet, *, fence: int | None, job_id: str | None) -> None:
    """Write a version with its live set."""
    row = {
        "number": version.number,
        "kind": str(version.kind),
        "status": str(version.status),
        "parent": version.parent,
        "restores": version.restores,
        "digest": version.digest,
        "scores": dict(version.scores),
        "edits_counted": len(live_set.live),
        "window_count": len(live_set.window),
        "fence": fence,
        "job_id": job_id,
        "pinned": version.pinned,
        "author": version.author,
        "reason": version.reason,
        "created_at": version.created_at,
    }
    connection.execute(sa.insert(t.versions).values(**row))
    items = [
        {
            "version": version.number,
            "edit_id": item.edit_id,
            "carrier": str(item.carrier),
            "role": str(item.role),
            "held": item.held,
            "answer": item.answer,
        }
        for item in live_set.items
    ]
    if items:
        connection.execute(sa.insert(t.version_edits), items)


def live_set(connection: Connection, number: int) -> LiveSet:
    """The live set that was stored with a version."""
    select = (
        sa.select(t.version_edits, t.edits.c.key_digest, t.edits.c.seq)
        .join(t.edits, t.edits.c.id == t.version_edits.c.edit_id)
        .where(t.version_edits.c.version == number)
        .order_by(t.edits.c.seq)
    )
    return LiveSet(
        tuple(
            LiveItem(
                edit_id=row.edit_id,
                key=row.key_digest,
                seq=row.seq,
                carrier=Carrier(row.carrier),
                role=Role(row.role),
                held=row.held,
                answer=row.answer,
            )
            for row in connection.execute(select)
        )
    )


def set_status(connection: Connection, number: int, status: VersionStatus) -> None:
    """Mark a version, for instance as corrupt."""
    connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(status=str(status)))


def mark_corrupt(connection: Connection, digest: str) -> list[int]:
    """Mark every version with these bytes as corrupt; their numbers."""
    update = sa.update(t.versions).where(t.versions.c.digest == digest, t.versions.c.status == VersionStatus.PUBLISHED)
    return sorted(connection.execute(update.values(status=str(VersionStatus.CORRUPT)).returning(t.versions.c.number)).scalars())


def pin(connection: Connection, number: int, pinned: bool = True) -> None:
    """Keep a version's checkpoint for good, or stop keeping it."""
    connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(pinned=pinned))


def beyond_retention(connection: Connection, *, head: int, keep_last: int, keep_every: int) -> list[int]:
    """Published versions whose checkpoint need not be kept: not the head, not pinned, not of the last, not every n-th."""
    newest = connection.execute(sa.select(sa.func.max(t.versions.c.number))).scalar_one()
    select = sa.select(t.versions.c.number).where(
        t.versions.c.number <= newest - keep_last,
        t.versions.c.number != head,
        t.versions.c.number % keep_every != 0,
        t.versions.c.status == VersionStatus.PUBLISHED,
        sa.not_(t.versions.c.pinned),
    )
    return sorted(connection.execute(select).scalars())


def collect(connection: Connection, numbers: list[int]) -> None:
    """Mark versions as collected and forget their live sets."""
    for number in numbers:
        set_status(connection, number, VersionStatus.COLLECTED)
        connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.version == number))


def digests_kept(connection: Connection) -> set[str]:
    """The digests of all versions that still need their file."""
    select = sa.select(t.versions.c.digest).where(
        t.versions.c.status != VersionStatus.COLLECTED, t.versions.c.digest.is_not(None)
    )
    return set(connection.execute(select.distinct()).scalars())


def _version(row: RowMapping) -> Version:
    created_at: datetime = row["created_at"]
    return Version(
        number=row["number"],
        kind=VersionKind(row["kind"]),
        status=VersionStatus(row["status"]),
        parent=row["parent"],
        restores=row["restores"],
        digest=row["digest"],
        created_at=created_at,
        author=row["author"],
        reason=row["reason"],
        edits_counted=row["edits_counted"],
        window=row["window_count"],
        scores=row["scores"],
        pinned=row["pinned"],
    )
