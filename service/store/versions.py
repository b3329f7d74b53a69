"""Rows of versions and their live sets.

A live set is stored as changes. A version that is its own *root* has all of its rows; any other version has only the rows that
differ from its root's (`present` is false for an item that the root has and the version has not). The rows of a publication thus
grow with its changes and not with the number of live edits. Roots are never chained: a set is read from at most two versions.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from service.domain.errors import NotFound
from service.domain.liveset import Carrier, LiveItem, LiveSet, Role
from service.domain.version import Version, VersionStatus
from service.store import aliases, bases, evaluations, stated_edits
from service.store import tables as t
from service.store.edits import chunks
from service.store.live_set_cache import cache_of

FEW_CHANGES = 256  # a set with at most so many changes to its root is never written whole
LARGEST = 2**63 - 1  # of a database's BIGINT

CARRIERS: Mapping[str, Carrier] = {str(carrier): carrier for carrier in Carrier}
ROLES: Mapping[str, Role] = {str(role): role for role in Role}


@dataclass(frozen=True)
class _StoredVersion:
    """Where the rows of a version are stored."""

    number: int
    root: int
    status: str
    created_at: datetime

    @property
    def name(self) -> tuple[int, datetime]:
        """The name of its live set in the cache. A publication that is rolled back leaves its number to a later version, so the
        name includes the time.
        """
        return self.number, self.created_at


def read_first_day(connection: Connection) -> date:
    """The day, in UTC, on which version 0 was made, and the store with it. It never changes."""
    return get(connection, 0).created_at.astimezone(UTC).date()


def get(connection: Connection, number: int) -> Version:
    """One version. Raises NotFound."""
    row = None
    if 0 <= number <= LARGEST:
        row = connection.execute(_select().where(t.versions.c.number == number)).mappings().one_or_none()
    if row is None:
        raise NotFound("there is no version with this number", field="version")
    return _version(row)


def read_page(connection: Connection, *, limit: int, before: int | None = None) -> list[Version]:
    """Versions with numbers below `before`, newest first."""
    select = _select().order_by(t.versions.c.number.desc()).limit(limit)
    if before is not None:
        select = select.where(t.versions.c.number < before)
    return [_version(row) for row in connection.execute(select).mappings()]


def read_kept(connection: Connection, *, since: int, limit: int) -> list[Version]:
    """Versions that answer, from a number on, newest first."""
    kept = (t.versions.c.number >= since, t.versions.c.status == VersionStatus.PUBLISHED)
    select = _select().where(*kept).order_by(t.versions.c.number.desc()).limit(limit)
    return [_version(row) for row in connection.execute(select).mappings()]


def find_latest_retrain(connection: Connection, version: Version, *, kinds: Collection[str], minors: int) -> Version | None:
    """The last version of some kinds up to `version` with `minors` minor retrains since the same major one; None if there is
    none.
    """
    same = (t.versions.c.kind.in_(kinds), t.versions.c.major_at == version.major_at, t.versions.c.minors == minors)
    select = _select().where(*same, t.versions.c.number <= version.number)
    row = connection.execute(select.order_by(t.versions.c.number.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else _version(row)


def find_last_of_kinds(connection: Connection, kinds: Collection[str], *, after: int, until: int) -> int | None:
    """The number of the last version of some kinds after `after` and up to `until`; None if there is none."""
    between = (t.versions.c.number > after, t.versions.c.number <= until, t.versions.c.kind.in_(kinds))
    return connection.execute(sa.select(sa.func.max(t.versions.c.number)).where(*between)).scalar()


def insert(connection: Connection, version: Version, live_set: LiveSet, *, fence: int | None, job_id: str | None) -> None:
    """Write a version with its live set: as changes to the root of the version that it came from, or whole if there are many."""
    source = _find_stored(connection, version.parent or 0 if version.restores is None else version.restores)
    assert source is not None, "a version comes from another"
    root_set = _root_set(connection, source.root)
    live_set = _share_items(root_set, live_set)
    root, changed = source.root, _changes(root_set, live_set)
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
        "neutral_sentences": version.neutral_sentences,
        "author": version.author,
        "reason": version.reason,
        "created_at": version.created_at,
    }
    connection.execute(sa.insert(t.versions).values(**row))
    _write(connection, version.number, changed)
    # If the publication is rolled back, its set is never found: a later version of this number has another time.
    cache_of(connection).put((version.number, version.created_at), live_set)


def max_changes(size: int) -> int:
    """The most changes to a root with which a set of `size` items is stored.

    A root costs `size` rows, and the k-th edit after it k rows. √(2 · size) edits per root minimise the sum. A retrain of a large
    set changes few rows too, because its edits are mostly in the tensors before and after it.
    """
    return max(FEW_CHANGES, math.isqrt(2 * size))


def read_live_set(connection: Connection, number: int) -> LiveSet:
    """The live set of a version; empty if the version was collected or does not exist."""
    while True:
        stored = _find_stored(connection, number)
        if stored is None or stored.status == VersionStatus.COLLECTED:
            return LiveSet()
        live_set = cache_of(connection).get(stored.name)
        if live_set is not None:
            return live_set
        live_set = _read(connection, stored)
        # A reader's statements are not one transaction: between them the version may be collected or get another root.
        if _find_stored(connection, number) == stored:
            cache_of(connection).put(stored.name, live_set)
            return live_set


def find_holding(connection: Connection, edit_ids: Collection[str]) -> list[int]:
    """The versions that are not collected and have an item of any of these edits, in any role, or state one of them."""
    present: dict[int, set[str]] = {}
    absent: dict[int, set[str]] = {}
    for chunk in chunks(edit_ids):
        columns = (t.version_edits.c.version, t.version_edits.c.edit_id, t.version_edits.c.present)
        for row in connection.execute(sa.select(*columns).where(t.version_edits.c.edit_id.in_(chunk))):
            (present if row.present else absent).setdefault(row.version, set()).add(row.edit_id)
    kept = sa.select(t.versions.c.number, t.versions.c.root).where(t.versions.c.status != VersionStatus.COLLECTED)
    nothing: set[str] = set()
    having = {
        row.number
        for row in connection.execute(kept)
        if present.get(row.number) or present.get(row.root, nothing) - absent.get(row.number, nothing)
    }
    return sorted(having | stated_edits.find_versions(connection, edit_ids))


def delete_items(connection: Connection, edit_ids: Collection[str]) -> int:
    """Delete all live set rows of these edits. Returns their number. The versions with such items must be collected before.

    A version that is stored as changes to such a root gets another root first. This is needed for the foreign key, and because a
    process that has the old root's set in its cache would go on reading the edits from it. It takes long, so a large purge calls
    `replace_root` before, one root at a time.
    """
    for root in find_roots_holding(connection, edit_ids):
        replace_root(connection, root)
    deleted = 0
    for chunk in chunks(edit_ids):
        deleted += connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.edit_id.in_(chunk))).rowcount
    stated_edits.delete_withdrawn(connection, edit_ids)
    _delete_unneeded_rows(connection)
    cache_of(connection).clear()
    return deleted


def find_roots_holding(connection: Connection, edit_ids: Collection[str]) -> list[int]:
    """The roots with rows of these edits to which other versions are stored as changes."""
    roots = set[int]()
    for chunk in chunks(edit_ids):
        select = sa.select(t.version_edits.c.version).where(t.version_edits.c.edit_id.in_(chunk), t.version_edits.c.present)
        roots |= set(connection.execute(select.distinct()).scalars())
    kept = sa.select(t.versions.c.root).where(
        t.versions.c.root != t.versions.c.number, t.versions.c.status != VersionStatus.COLLECTED
    )
    return sorted(roots & set(connection.execute(kept.distinct()).scalars()))


def set_status(connection: Connection, number: int, status: VersionStatus) -> None:
    """Mark a version, for instance as corrupt."""
    connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(status=str(status)))


def mark_corrupt(connection: Connection, digest: str) -> list[int]:
    """Mark every version with this checkpoint as corrupt. Returns their numbers."""
    update = sa.update(t.versions).where(t.versions.c.digest == digest, t.versions.c.status == VersionStatus.PUBLISHED)
    return sorted(connection.execute(update.values(status=str(VersionStatus.CORRUPT)).returning(t.versions.c.number)).scalars())


def unmark_corrupt(connection: Connection, digest: str) -> list[int]:
    """Mark the corrupt versions with this checkpoint as published again. Returns their numbers."""
    update = sa.update(t.versions).where(t.versions.c.digest == digest, t.versions.c.status == VersionStatus.CORRUPT)
    return sorted(connection.execute(update.values(status=str(VersionStatus.PUBLISHED)).returning(t.versions.c.number)).scalars())


def read_corrupt_digests(connection: Connection) -> set[str]:
    """The digests of all versions that are marked as corrupt."""
    select = sa.select(t.versions.c.digest).where(t.versions.c.status == VersionStatus.CORRUPT, t.versions.c.digest.is_not(None))
    return set(connection.execute(select.distinct()).scalars())


def pin(connection: Connection, number: int, pinned: bool = True) -> None:
    """Pin a version, so that its checkpoint is always kept, or unpin it."""
    connection.execute(sa.update(t.versions).where(t.versions.c.number == number).values(pinned=pinned))


def find_beyond_retention(connection: Connection, *, head: int, keep_last: int, keep_every: int) -> list[int]:
    """Published versions whose checkpoint need not be kept: neither the head, nor pinned, nor one of the last `keep_last`, nor
    every `keep_every`-th, nor waiting for an evaluation, nor named by an alias.
    """
    newest = connection.execute(sa.select(sa.func.max(t.versions.c.number))).scalar_one()
    evaluated = sa.select(t.evals.c.version).where(t.evals.c.status.in_(evaluations.UNFINISHED))
    select = sa.select(t.versions.c.number).where(
        t.versions.c.number <= newest - keep_last,
        t.versions.c.number != head,
        t.versions.c.number % keep_every != 0,
        t.versions.c.status == VersionStatus.PUBLISHED,
        sa.not_(t.versions.c.pinned),
        t.versions.c.number.not_in(aliases.named_versions()),
        t.versions.c.number.not_in(evaluated),
    )
    return sorted(connection.execute(select).scalars())


def collect(connection: Connection, numbers: Iterable[int]) -> None:
    """Mark versions as collected and delete the rows of what they state and of their live sets, except those of a root that
    another version still needs.
    """
    for number in numbers:
        set_status(connection, number, VersionStatus.COLLECTED)
    stated_edits.delete_of_collected(connection)
    _delete_unneeded_rows(connection)


def read_kept_digests(connection: Connection) -> set[str]:
    """The digests of all versions that still need their file."""
    select = sa.select(t.versions.c.digest).where(
        t.versions.c.status != VersionStatus.COLLECTED, t.versions.c.digest.is_not(None)
    )
    return set(connection.execute(select.distinct()).scalars())


def _select() -> sa.Select[Any]:
    return sa.select(t.versions, bases.of_version("fingerprint"), bases.of_version("name"))


def _version(row: RowMapping) -> Version:
    created_at: datetime = row["created_at"]
    return Version(
        number=row["number"],
        kind=row["kind"],
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
        neutral_sentences=row["neutral_sentences"],
        base_fingerprint=row["base_fingerprint"],
        base_name=row["base_name"],
    )


def read_by_digest(connection: Connection) -> dict[str, list[tuple[int, bool]]]:
    """The versions that still need a file by its digest, each with whether it is marked as corrupt; in order of number."""
    select = sa.select(t.versions.c.digest, t.versions.c.number, t.versions.c.status).where(
        t.versions.c.status != VersionStatus.COLLECTED, t.versions.c.digest.is_not(None)
    )
    by_digest: dict[str, list[tuple[int, bool]]] = {}
    for row in connection.execute(select.order_by(t.versions.c.number)):
        by_digest.setdefault(row.digest, []).append((row.number, row.status == VersionStatus.CORRUPT))
    return by_digest


def has_digest(connection: Connection, digest: str) -> bool:
    """Whether any version has, or had, this checkpoint."""
    return connection.execute(sa.select(t.versions.c.number).where(t.versions.c.digest == digest).limit(1)).first() is not None


def read_collected_digests(connection: Connection) -> set[str]:
    """The digests of all collected versions."""
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


def _read(connection: Connection, stored: _StoredVersion) -> LiveSet:
    if stored.root == stored.number:
        return LiveSet(tuple(item for item, _ in _rows(connection, stored.number)))
    items = dict(_root_set(connection, stored.root).by_id)
    for item, present in _rows(connection, stored.number):
        if present:
            items[item.edit_id] = item
        else:
            items.pop(item.edit_id, None)
    return LiveSet(tuple(sorted(items.values(), key=lambda item: item.seq)))


def _root_set(connection: Connection, root: int) -> LiveSet:
    """The complete set of a root. The rows of a collected root stay as long as a version needs them."""
    stored = _find_stored(connection, root)
    assert stored is not None and stored.root == root, "a root is its own root"
    live_set = cache_of(connection).get(stored.name)
    if live_set is None:
        live_set = _read(connection, stored)
        cache_of(connection).put(stored.name, live_set)
    return live_set


def _rows(connection: Connection, number: int, edit_ids: Sequence[str] | None = None) -> list[tuple[LiveItem, bool]]:
    """A version's own rows in order of submission, all or those of some edits, each with whether the version has the item."""
    columns = (t.version_edits, t.edits.c.key_digest, t.edits.c.seq)
    select = sa.select(*columns).join(t.edits, t.edits.c.id == t.version_edits.c.edit_id)
    if edit_ids is not None:
        select = select.where(t.version_edits.c.edit_id.in_(edit_ids))
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
    """The same set with the root's own item objects where they are equal, because 100,000 items take 60 MB."""
    before = root.by_id
    equal = {item.edit_id for item in _items_not_of(root, live_set) if before.get(item.edit_id) == item}
    if not equal:
        return live_set
    return LiveSet(tuple([before[item.edit_id] if item.edit_id in equal else item for item in live_set.items]))


def _changes(root: LiveSet, live_set: LiveSet) -> list[tuple[LiveItem, bool]]:
    """The changes from a root to a set: new and changed items (True), and items that the set has not (False)."""
    before = root.by_id
    changed = [(item, True) for item in _items_not_of(root, live_set) if before.get(item.edit_id) != item]
    return changed + [(before[edit_id], False) for edit_id in sorted(before.keys() - live_set.by_id.keys())]


def _items_not_of(root: LiveSet, live_set: LiveSet) -> list[LiveItem]:
    """The items that are not the root's own objects. Most are, and an identity test needs no comparison of fields."""
    before = root.by_id
    return [item for item in live_set.items if before.get(item.edit_id) is not item]


def replace_root(connection: Connection, root: int) -> None:
    """Give the versions that are stored as changes to a collected `root` another root: the first of them.

    The first version takes over the unchanged rows of the old root. The others become changes to the first. Only rows that differ
    are read and written one by one.
    """
    kept = (t.versions.c.root == root, t.versions.c.number != root, t.versions.c.status != VersionStatus.COLLECTED)
    numbers = connection.execute(sa.select(t.versions.c.number).where(*kept).order_by(t.versions.c.number)).scalars().all()
    if not numbers:
        return
    first, *others = numbers
    own = _own_rows(connection, first)
    replaced = _own_rows(connection, root, own)
    for chunk in chunks(own):
        rows = (t.version_edits.c.version == root, t.version_edits.c.edit_id.in_(chunk))
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
        else [row for chunk in chunks(edit_ids) for row in _rows(connection, number, chunk)]
    )
    return {item.edit_id: (item, present) for item, present in found}


def _rerooted(
    changes: Mapping[str, tuple[LiveItem, bool]],
    own: Mapping[str, tuple[LiveItem, bool]],
    replaced: Mapping[str, tuple[LiveItem, bool]],
) -> list[tuple[LiveItem, bool]]:
    """The `changes` of a version to an old root, as changes to a new root whose own changes to the old one were `own`.

    An item that the new root changed and the version did not is, for the version, the old root's item (`replaced`) or absent.
    """
    new = []
    for edit_id in {**own, **changes}:
        item, present = changes.get(edit_id) or replaced.get(edit_id) or (own[edit_id][0], False)
        root_row = own.get(edit_id)
        is_same = root_row is not None and present == root_row[1] and (not present or item == root_row[0])
        if not is_same:
            new.append((item, present))
    return new


def _delete_unneeded_rows(connection: Connection) -> None:
    """Delete the rows of collected versions, except those of roots that other versions need."""
    has_rows = sa.exists().where(t.version_edits.c.version == t.versions.c.number)
    collected = sa.select(t.versions.c.number).where(t.versions.c.status == VersionStatus.COLLECTED, has_rows)
    needed = sa.select(t.versions.c.root).where(t.versions.c.status != VersionStatus.COLLECTED)
    unneeded = set(connection.execute(collected).scalars()) - set(connection.execute(needed.distinct()).scalars())
    for number in sorted(unneeded):
        connection.execute(sa.delete(t.version_edits).where(t.version_edits.c.version == number))
