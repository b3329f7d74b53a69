"""The head row: which version answers, the numbers handed out in order of commit, and the lease with its fence."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.domain.arithmetic import Arithmetic
from service.domain.errors import Conflict, Stale, Unavailable
from service.domain.version import CONTEXT, Head
from service.store import tables as t
from service.store.database import database_clock
from service.store.ids import new_id

OPENING_LOCK = 0x0E22A7B  # any number other than the migrations', the same for every server of the database


class FenceLost(Stale):
    """Another worker has a newer fence, so this one must not publish any more."""


def read(connection: Connection) -> Head:
    """The current head. Raises Unavailable if the store was not created yet."""
    return _head(connection, sa.select(t.head))


def lock(connection: Connection) -> Head:
    """The head, locked: every other writer waits until this transaction ends, so its decisions stay true until its commit."""
    return _head(connection, sa.select(t.head).with_for_update())


def lock_opening(connection: Connection) -> None:
    """Let no other process create or name this store until this transaction ends. A SQLite file has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(OPENING_LOCK)))


def read_store(connection: Connection) -> tuple[bool, str | None]:
    """Whether the store was created, and its name. A store of an old release has no name until it is opened."""
    row = connection.execute(sa.select(t.head.c.store_id)).one_or_none()
    return row is not None, None if row is None else row.store_id


def name_store(connection: Connection, store_id: str) -> None:
    """Give the store a name."""
    connection.execute(sa.update(t.head).values(store_id=store_id))


def pin_arithmetic(connection: Connection, chosen: Arithmetic, *, seen: Arithmetic | None) -> None:
    """Pin the arithmetic that was chosen by one who saw `seen` pinned.

    Raises Unavailable if another server has pinned a dtype or a number of threads meanwhile that is neither.
    """
    pinned = lock(connection).arithmetic
    if pinned is not None and pinned != seen:
        if (pinned.dtype, pinned.threads) == (chosen.dtype, chosen.threads):
            return
        raise Unavailable("another server has just chosen this store's dtype and torch_threads: start again, to take them over")
    columns = {
        "dtype": chosen.dtype,
        "dtype_reason": chosen.dtype_reason,
        "torch_threads": chosen.threads,
        "torch_threads_reason": chosen.threads_reason,
    }
    connection.execute(sa.update(t.head).values(**columns))


def read_epoch(connection: Connection, version: int) -> int:
    """The epoch at which a version became the head; 0 for the base, which was the first head."""
    epoch: int | None = connection.execute(
        sa.select(t.head_history.c.epoch).where(t.head_history.c.to_version == version)
    ).scalar_one_or_none()
    return epoch or 0


def find_overlay_epoch(connection: Connection, epoch: int) -> int:
    """The epoch since which the head has the overlay that it has at `epoch`: a version that states other edits moves the head and
    leaves the overlay as it is.
    """
    moves = t.head_history.join(t.versions, t.versions.c.number == t.head_history.c.to_version)
    select = sa.select(t.head_history.c.epoch).select_from(moves)
    moved = select.where(t.head_history.c.epoch <= epoch, t.versions.c.kind != CONTEXT)
    found: int | None = connection.execute(moved.order_by(t.head_history.c.epoch.desc()).limit(1)).scalar_one_or_none()
    return found or 0


def create_or_check(
    connection: Connection,
    *,
    fingerprint: str,
    name: str,
    author: str,
    now: datetime,
    store_id: str | None = None,
    former: str | None = None,
) -> Head:
    """Create the head row and version 0 of a new store, or check that an old store belongs to this base. `former`: a fingerprint
    of the same base by an older release; a store that pinned it pins `fingerprint` from now on.

    Raises Conflict if the store's edits were fitted to other weights, on which their overlays would be noise.
    """
    row = connection.execute(sa.select(t.head).with_for_update()).one_or_none()
    if row is None:
        version = {"number": 0, "kind": "base", "status": "published", "scores": {}, "edits_counted": 0, "window_count": 0}
        connection.execute(sa.insert(t.versions).values(**version, pinned=True, root=0, minors=0, author=author, created_at=now))
        numbers = {
            "version": 0,
            "epoch": 0,
            "latest_version": 0,
            "next_seq": 1,
            "next_event": 1,
            "fence": 0,
            "lease_until_s": 0.0,
        }
        connection.execute(
            sa.insert(t.head).values(id=1, store_id=store_id or new_id(), base_fingerprint=fingerprint, base_name=name, **numbers)
        )
    elif row.base_fingerprint not in (fingerprint, former):
        raise Conflict(
            "this store was made with another base model: start with that model, give this one a data_dir of its own, or take the"
            " edits to it with `errata rebase`",
            field="model",
        )
    else:
        _renew_pin(connection, row, fingerprint=fingerprint, name=name)
    return lock(connection)


def _renew_pin(connection: Connection, row: sa.Row[Any], *, fingerprint: str, name: str) -> None:
    """Write what an old release did not: the present form of the fingerprint, and the commit of a model on Hugging Face."""
    pinned_name = name if name.startswith(f"{row.base_name}@") else row.base_name
    if (row.base_fingerprint, row.base_name) != (fingerprint, pinned_name):
        connection.execute(sa.update(t.head).values(base_fingerprint=fingerprint, base_name=pinned_name))


def take_seqs(connection: Connection, count: int) -> int:
    """Reserve `count` consecutive sequence numbers and return the first. They are gapless and in order of commit."""
    after = connection.execute(
        sa.update(t.head).values(next_seq=t.head.c.next_seq + count).returning(t.head.c.next_seq)
    ).scalar_one()
    return int(after) - count


def move(connection: Connection, head: Head, *, fence: int | None, reason: str | None, author: str, now: datetime) -> Head:
    """Move the head to a new version number, if `head` is still the head and `fence`, unless None, is still the fence.

    Raises FenceLost or Stale; the caller must then roll back the transaction.
    """
    update = sa.update(t.head).where(t.head.c.version == head.version, t.head.c.epoch == head.epoch)
    if fence is not None:
        update = update.where(t.head.c.fence == fence)
    number = t.head.c.latest_version + 1
    moved = connection.execute(
        update.values(version=number, latest_version=number, epoch=t.head.c.epoch + 1).returning(t.head.c.version, t.head.c.epoch)
    ).one_or_none()
    if moved is None:
        check_fence(connection, fence)
        raise Stale("the head has moved meanwhile; look at it and decide again")
    history = {"from_version": head.version, "to_version": moved.version, "reason": reason, "author": author, "at": now}
    connection.execute(sa.insert(t.head_history).values(epoch=moved.epoch, **history))
    return read(connection)


def check_fence(connection: Connection, fence: int | None) -> None:
    """Raise FenceLost if another worker has a newer fence."""
    if fence is not None and connection.execute(sa.select(t.head.c.fence)).scalar_one() != fence:
        raise FenceLost("another worker has taken over")


def read_lease_owner(connection: Connection) -> str | None:
    """The last owner of the lease that did not release it, whether or not the lease has ended."""
    owner: str | None = connection.execute(sa.select(t.head.c.lease_owner)).scalar_one()
    return owner


def take_lease(
    connection: Connection, owner: str, *, lease_s: float, is_only_server: bool = False, dead_owner: str | None = None
) -> int | None:
    """Become the one worker and return the new fence; None while another worker's lease runs.

    The lease of a dead worker need not run out. `is_only_server`: this server holds the lock of the folder, so there is no other.
    `dead_owner`: an owner that is known to be dead. The fence keeps a mistake about either harmless.
    """
    clock = database_clock(connection)
    update = sa.update(t.head)
    if not is_only_server:
        update = update.where((t.head.c.lease_until_s <= clock) | (t.head.c.lease_owner == dead_owner))
    return connection.execute(
        update.values(fence=t.head.c.fence + 1, lease_owner=owner, lease_until_s=clock + lease_s).returning(t.head.c.fence)
    ).scalar_one_or_none()


def renew_lease(connection: Connection, fence: int, *, lease_s: float) -> None:
    """Extend the lease. Raises FenceLost if another worker has it."""
    until = database_clock(connection) + lease_s
    if connection.execute(sa.update(t.head).where(t.head.c.fence == fence).values(lease_until_s=until)).rowcount != 1:
        raise FenceLost("another worker has taken over")


def release_lease(connection: Connection, fence: int) -> None:
    """End the lease at once, so that the next worker need not wait."""
    connection.execute(sa.update(t.head).where(t.head.c.fence == fence).values(lease_until_s=0.0, lease_owner=None))


def _head(connection: Connection, select: sa.Select[tuple[object, ...]]) -> Head:
    row = connection.execute(select).one_or_none()
    if row is None:
        raise Unavailable("the store is not ready yet")
    return Head(
        version=row.version,
        epoch=row.epoch,
        fence=row.fence,
        base_fingerprint=row.base_fingerprint,
        base_name=row.base_name,
        store_id=row.store_id,
        arithmetic=_arithmetic(row),
    )


def _arithmetic(row: sa.Row[tuple[object, ...]]) -> Arithmetic | None:
    if row.dtype is None:
        return None
    return Arithmetic(
        dtype=row.dtype,
        dtype_reason=row.dtype_reason,
        threads=row.torch_threads,
        threads_reason=row.torch_threads_reason,
    )
