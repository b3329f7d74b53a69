"""Rows of versions and their live sets.

A live set is kept as changes: a version that is its own *root* has all of its rows, any other only those that differ from its
root's (`present` is false for an item that the root has and it has not). What a publication writes then goes by what it changes,
not by how many edits are live. Roots are never chained: reading a set takes at most two of them.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.errors import NotFound
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role
from service.domain.version import Version, VersionKind, VersionStatus
from service.store import evaluations
from service.store import tables as t
from service.store.edits import chunks
from service.store.live_set_cache import cache_of

FEW_CHANGES = 256  # a set that differs from its root by no more is never written whole
LARGEST = 2**63 - 1  # of a database's whole numbers

CARRIERS: Mapping[str, Carrier] = {str(carrier): carrier for carrier in Carrier}
ROLES: Mapping[str, Role] = {str(role): role for role in Role}


@dataclass(frozen=True)
class _StoredVersion:
    """Where a version's rows are to be found."""

    number: int
    root: int
    status: str
    created_at: datetime

    @property
    def name(self) -> tuple[int, datetime]:
        """By which its set is remembered: a publication that is undone leaves its number to another, made at another time."""
        return self.number, self.created_at


def get(connection: Connection, number: int) -> Version:
    """One version. Raises NotFound."""
    row = None
    if 0 <= number <= LARGEST:
        row = connection.execute(sa.select(t.versions).where(t.versions.c.number == number)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no version with this number", field="version")
    return _version(row)


def read_page(connection: Connection, *, limit: int, before: int | None = None) -> list[Version]:
    """Versions, newest first, with numbers under `before`."""
    select = sa.select(t.versions).order_by(t.versions.c.number.desc()).limit(limit)
    if before is not None:
        select = select.where(t.versions.c.number < before)
    return [_version(row) for row in connection.execute(select).mappings()]


def find_latest_retrain(connection: Connection, version: Version, *, minors: int) -> Version | None:
    """Of the versions up to one, the last that a retrain published so many minor ones after the same major one; None if none."""
    same = (t.versions.c.kind == VersionKind.LOCFT, t.versions.c.major_at == version.major_at, t.versions.c.minors == minors)
    select = sa.select(t.versions).where(*same, t.versions.c.number <= version.number)
    row = connection.execute(select.order_by(t.versions.c.number.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else _version(row)


def find_last_of_kinds(connection: Connection, kinds: Collection[VersionKind], *, after: int, until: int) -> int | None:
    """The number of the last version of some kinds, later than `after` and no later than `until`; None if there is none."""
    between = (t.versions.c.number > after, t.versions.c.number <= until, t.versions.c.kind.in_(kinds))
    return connection.execute(sa.select(sa.func.max(t.versions.c.number)).where(*between)).scalar()


def insert(connection: Connection, version: Version, live_set: LiveSet, *, fence: int | None, job_id: str | None) -> None:
    """Write a version with its live set: as changes to the root of the version that it came from, or whole if they are many."""
    near = _find_stored(connection, version.parent or 0 if version.restores is None else version.restores)
    assert near is not None, "a version comes from another"
    root_set = _root_set(connection, near.root)
    live_set = _share_items(root_set, live_set)
    root, changed = near.root, _changes(root_set, live_set)
    if len(changed) > max_changes(len(live_set.items)):
        root, changed = version.number, [(item, True) for item in live_set.items]
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
        "root": root,
        "minors": version.minors,
        "major_at": version.major_at,
        "author": version.author,
        "reason": version.reason,
        "created_at": version.created_at,
    }
    connection.execute(sa.insert(t.versions).values(**row))
    _write(connection, version.number, changed)
    # Should the publication be undone, nobody finds its set: another of this number is made at another time.
    cache_of(connection).put((version.number, version.created_at), live_set)


def max_changes(size: int) -> int:
    """How many changes to a root a set of `size` items is kept as.

    A root costs `size` rows, and the k-th edit after it k rows: √(2 · size) edits a root make the least of both. A retrain of a
    large set changes few rows too: what was in the tensors before is in them again.
    """
    return max(FEW_CHANGES, math.isqrt(2 * size))


def read_live_set(connection: Connection, number: int) -> LiveSet:
    """The live set that was stored with a version; empty for one that was collected or is not there."""
    while True:
        place = _find_stored(connection, number)
        if place is None or place.status == VersionStatus.COLLECTED:
            return LiveSet()
        found = cache_of(connection).get(place.name)
        if found is not None:
            return found
        found = _read(connection, place)
        # Statements of a reader are not one transaction: the version may have been collected, or got another root, between them.
        if _find_stored(connection, number) == place:
            cache_of(connection).put(place.name, found)
            return found


def find_holding(connection: Connection, edit_ids: Collection[str]) -> list[int]:
    """The versions, less those collected, that hold any of these edits in whatever role."""
    present: dict[int, set[str]] = {}
    absent: dict[int, set[str]] = {}
    for some in chunks(edit_ids):
        columns = (t.version_edits.c.version, t.version_edits.c.edit_id, t.version_edits.c.present)
        for row in connection.execute(sa.select(*columns).where(t.version_edits.c.edit_id.in_(some))):
            (present if row.present else absent).setdefault(row.version, set()).add(row.edit_id)
    kept = sa.select(t.versions.c.number, t.versions.c.root).where(t.versions.c.status != VersionStatus.COLLECTED)
    nothing: set[str] = set()
    return sorted(
        row.number
        for row in connection.execute(kept)
        if present.get(row.number) or present.get(row.root, nothing) - absent.get(row.number, nothing)
    )


def delete_items(connection: Connection, edit_ids: Collection[str]) -> int:
    """Delete every row that names these edits; how many. Whatever holds them must have been collected before.

    A version that is kept as changes to such a root is given another root first, and not only for the foreign key: a process that
    remembers the old root's set would go on reading the edits by it. That takes long, so whoever has much to take out does it
    before, a root at a time.
    """
    for root in find_roots_holding(connection, edit_ids):
        replace_root(connection, root)
    deleted = 0
    for some in chunks(edit_ids):
        deleted += connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.edit_id.in_(some))).rowcount
    _delete_unneeded_rows(connection)
    cache_of(connection).clear()
    return deleted


def find_roots_holding(connection: Connection, edit_ids: Collection[str]) -> list[int]:
    """Roots that have rows of these edits and that other versions are kept as changes to."""
    roots = set[int]()
    for some in chunks(edit_ids):
        select = sa.select(t.version_edits.c.version).where(t.version_edits.c.edit_id.in_(some), t.version_edits.c.present)
        roots |= set(connection.execute(select.distinct()).scalars())
    kept = sa.select(t.versions.c.root).where(
        t.versions.c.root != t.versions.c.number, t.versions.c.status != VersionStatus.COLLECTED
    )
    return sorted(roots & set(connection.execute(kept.distinct()).scalars()))


def set_status(connection: Connection, number: int, status: VersionStatus) -> None:
    """Mark a version, for instance as corrupt."""
    connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(status=str(status)))


def mark_corrupt(connection: Connection, digest: str) -> list[int]:
    """Mark every version with these bytes as corrupt; their numbers."""
    update = sa.update(t.versions).where(t.versions.c.digest == digest, t.versions.c.status == VersionStatus.PUBLISHED)
    return sorted(connection.execute(update.values(status=str(VersionStatus.CORRUPT)).returning(t.versions.c.number)).scalars())


def unmark_corrupt(connection: Connection, digest: str) -> list[int]:
    """Take it back that versions with these bytes are corrupt; their numbers."""
    update = sa.update(t.versions).where(t.versions.c.digest == digest, t.versions.c.status == VersionStatus.CORRUPT)
    return sorted(connection.execute(update.values(status=str(VersionStatus.PUBLISHED)).returning(t.versions.c.number)).scalars())


def read_corrupt_digests(connection: Connection) -> set[str]:
    """The digests of all versions that are marked as corrupt."""
    select = sa.select(t.versions.c.digest).where(t.versions.c.status == VersionStatus.CORRUPT, t.versions.c.digest.is_not(None))
    return set(connection.execute(select.distinct()).scalars())


def pin(connection: Connection, number: int, pinned: bool = True) -> None:
    """Keep a version's checkpoint for good, or stop keeping it."""
    connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(pinned=pinned))


def find_beyond_retention(connection: Connection, *, head: int, keep_last: int, keep_every: int) -> list[int]:
    """Published versions whose checkpoint need not be kept: not the head, not pinned, not of the last, not every n-th, and not
    waiting to be evaluated.
    """
    newest = connection.execute(sa.select(sa.func.max(t.versions.c.number))).scalar_one()
    evaluated = sa.select(t.evals.c.version).where(t.evals.c.status.in_(evaluations.UNFINISHED))
    select = sa.select(t.versions.c.number).where(
        t.versions.c.number <= newest - keep_last,
        t.versions.c.number != head,
        t.versions.c.number % keep_every != 0,
        t.versions.c.status == VersionStatus.PUBLISHED,
        sa.not_(t.versions.c.pinned),
        t.versions.c.number.not_in(evaluated),
    )
    return sorted(connection.execute(select).scalars())


def collect(connection: Connection, numbers: Iterable[int]) -> None:
    """Mark versions as collected and forget their live sets, but for the rows of a root that a version still needs."""
    for number in numbers:
        set_status(connection, number, VersionStatus.COLLECTED)
    _delete_unneeded_rows(connection)


def read_kept_digests(connection: Connection) -> set[str]:
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
        minors=row["minors"],
        major_at=row["major_at"],
    )


def read_by_digest(connection: Connection) -> dict[str, list[tuple[int, bool]]]:
    """The versions that still need a file by its digest, each with whether it is marked as corrupt; in order of number."""
    select = sa.select(t.versions.c.digest, t.versions.c.number, t.versions.c.status).where(
        t.versions.c.status != VersionStatus.COLLECTED, t.versions.c.digest.is_not(None)
    )
    found: dict[str, list[tuple[int, bool]]] = {}
    for row in connection.execute(select.order_by(t.versions.c.number)):
        found.setdefault(row.digest, []).append((row.number, row.status == VersionStatus.CORRUPT))
    return found


def has_digest(connection: Connection, digest: str) -> bool:
    """Whether any version has, or had, these bytes."""
    return connection.execute(sa.select(t.versions.c.number).where(t.versions.c.digest == digest).limit(1)).first() is not None


def read_collected_digests(connection: Connection) -> set[str]:
    """The digests of all versions whose file is not needed for their sake."""
    select = sa.select(t.versions.c.digest).where(
        t.versions.c.status == VersionStatus.COLLECTED, t.versions.c.digest.is_not(None)
    )
    return set(connection.execute(select.distinct()).scalars())


def read_unneeded_digests(connection: Connection) -> set[str]:
    """The digests of collected versions that no version still needs."""
    return read_collected_digests(connection) - read_kept_digests(connection)


def _find_stored(connection: Connection, number: int) -> _StoredVersion | None:
    if not 0 <= number <= LARGEST:
        return None
    columns = (t.versions.c.number, t.versions.c.root, t.versions.c.status, t.versions.c.created_at)
    row = connection.execute(sa.select(*columns).where(t.versions.c.number == number)).one_or_none()
    return None if row is None else _StoredVersion(*row)


def _read(connection: Connection, place: _StoredVersion) -> LiveSet:
    if place.root == place.number:
        return LiveSet(tuple(item for item, _ in _rows(connection, place.number)))
    items = dict(_root_set(connection, place.root).by_id)
    for item, present in _rows(connection, place.number):
        if present:
            items[item.edit_id] = item
        else:
            items.pop(item.edit_id, None)
    return LiveSet(tuple(sorted(items.values(), key=lambda item: item.seq)))


def _root_set(connection: Connection, root: int) -> LiveSet:
    """The complete set of a root, even of one that was collected: its rows stay as long as a version needs them."""
    place = _find_stored(connection, root)
    assert place is not None and place.root == root, "a root is its own root"
    found = cache_of(connection).get(place.name)
    if found is None:
        found = _read(connection, place)
        cache_of(connection).put(place.name, found)
    return found


def _rows(connection: Connection, number: int, some: Sequence[str] | None = None) -> list[tuple[LiveItem, bool]]:
    """A version's own rows in order of acceptance, all or those of some edits, each with whether the version has the item."""
    columns = (t.version_edits, t.edits.c.key_digest, t.edits.c.seq)
    select = sa.select(*columns).join(t.edits, t.edits.c.id == t.version_edits.c.edit_id)
    if some is not None:
        select = select.where(t.version_edits.c.edit_id.in_(some))
    return [
        (
            LiveItem(
                edit_id=row.edit_id,
                key=row.key_digest,
                seq=row.seq,
                carrier=CARRIERS[row.carrier],
                role=ROLES[row.role],
                is_in_tensors=row.held,
                answer=row.answer,
            ),
            row.present,
        )
        for row in connection.execute(select.where(t.version_edits.c.version == number).order_by(t.edits.c.seq))
    ]


def _write(connection: Connection, number: int, changed: Sequence[tuple[LiveItem, bool]]) -> None:
    rows = [
        {
            "version": number,
            "edit_id": item.edit_id,
            "carrier": str(item.carrier),
            "role": str(item.role),
            "held": item.is_in_tensors,
            "answer": item.answer,
            "present": present,
        }
        for item, present in changed
    ]
    if rows:
        connection.execute(sa.insert(t.version_edits), rows)


def _share_items(root: LiveSet, live_set: LiveSet) -> LiveSet:
    """The same set with the root's own items where they are equal: 100,000 of them are 60 MB."""
    before = root.by_id
    equal = {item.edit_id for item in _items_not_of(root, live_set) if before.get(item.edit_id) == item}
    if not equal:
        return live_set
    return LiveSet(tuple([before[item.edit_id] if item.edit_id in equal else item for item in live_set.items]))


def _changes(root: LiveSet, live_set: LiveSet) -> list[tuple[LiveItem, bool]]:
    """What makes a set of its root: items that are new or stand otherwise, and items that it has not."""
    before = root.by_id
    changed = [(item, True) for item in _items_not_of(root, live_set) if before.get(item.edit_id) != item]
    return changed + [(before[edit_id], False) for edit_id in sorted(before.keys() - live_set.by_id.keys())]


def _items_not_of(root: LiveSet, live_set: LiveSet) -> list[LiveItem]:
    """Items that are not the root's own: most are, and to see that takes no comparison."""
    before = root.by_id
    return [item for item in live_set.items if before.get(item.edit_id) is not item]


def replace_root(connection: Connection, root: int) -> None:
    """Give the versions kept as changes to a collected `root` another: the first of them, which takes over what the old one has
    and it has too. The others become changes to that. Only rows that differ are read and written one by one.
    """
    kept = (t.versions.c.root == root, t.versions.c.number != root, t.versions.c.status != VersionStatus.COLLECTED)
    numbers = connection.execute(sa.select(t.versions.c.number).where(*kept).order_by(t.versions.c.number)).scalars().all()
    if not numbers:
        return
    first, *others = numbers
    own = _own_rows(connection, first)
    replaced = _own_rows(connection, root, own)
    for some in chunks(own):
        rows = (t.version_edits.c.version == root, t.version_edits.c.edit_id.in_(some))
        connection.execute(sa.delete(t.version_edits).where(*rows))
    connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.version == first, sa.not_(t.version_edits.c.present)))
    connection.execute(sa.update(t.version_edits).where(t.version_edits.c.version == root).values(version=first))
    connection.execute(sa.update(t.versions).where(t.versions.c.number.in_(numbers)).values(root=first))
    for number in others:
        changed = _rerooted(_own_rows(connection, number), own, replaced)
        connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.version == number))
        _write(connection, number, changed)


def _own_rows(
    connection: Connection, number: int, edit_ids: Collection[str] | None = None
) -> Mapping[str, tuple[LiveItem, bool]]:
    """A version's own rows by edit, all or some, each with whether the version has the item."""
    found = (
        _rows(connection, number)
        if edit_ids is None
        else [row for some in chunks(edit_ids) for row in _rows(connection, number, some)]
    )
    return {item.edit_id: (item, present) for item, present in found}


def _rerooted(
    changes: Mapping[str, tuple[LiveItem, bool]],
    own: Mapping[str, tuple[LiveItem, bool]],
    replaced: Mapping[str, tuple[LiveItem, bool]],
) -> list[tuple[LiveItem, bool]]:
    """The `changes` of a version to an old root as changes to a new one, whose `own` were changes to the old one as well. What
    the new root changes and the version does not stands as it did, `replaced`, or is not there.
    """
    new = []
    for edit_id in {**own, **changes}:
        item, present = changes.get(edit_id) or replaced.get(edit_id) or (own[edit_id][0], False)
        was = own.get(edit_id)
        is_same = was is not None and present == was[1] and (not present or item == was[0])
        if not is_same:
            new.append((item, present))
    return new


def _delete_unneeded_rows(connection: Connection) -> None:
    """Delete the rows of collected versions, less those of roots that other versions are changes to."""
    has_rows = sa.exists().where(t.version_edits.c.version == t.versions.c.number)
    collected = sa.select(t.versions.c.number).where(t.versions.c.status == VersionStatus.COLLECTED, has_rows)
    needed = sa.select(t.versions.c.root).where(t.versions.c.status != VersionStatus.COLLECTED)
    going = set(connection.execute(collected).scalars()) - set(connection.execute(needed.distinct()).scalars())
    for number in sorted(going):
        connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.version == number))
