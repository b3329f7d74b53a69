"""Taking the store of the settings to the model of the settings, while no server works on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from service.domain.edit import Edit
from service.domain.errors import Conflict, Refused
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.context import LifecycleContext
from service.lifecycle.crash_points import arm
from service.lifecycle.head_follower import HeadFollower, PublishedHead
from service.lifecycle.lease_owner import is_dead, new_owner_name
from service.lifecycle.length_checks import check_lengths
from service.lifecycle.rebase import rebase
from service.lifecycle.store_identity import check_same_store, read_pinned
from service.lm.base import Base
from service.runtime.base_model import open_base
from service.runtime.editors import check_editors
from service.settings import Settings
from service.store import heads
from service.store.database import Store

LEASE_S = 60.0  # for the checks of the edits and the transaction


def rebase_store(store: Store, settings: Settings, *, author: str) -> bool:
    """Take a store to the model of the settings; return whether it was of another base before.

    Raises Conflict if a server works on the store, Refused if no server has made it yet, and ServiceError, with advice, if the
    model cannot be served.
    """
    arm(settings.fault_point)
    store.lock_folder()
    check_same_store(store, settings.checkpoints)
    pinned = read_pinned(store)
    if pinned is None:
        raise Refused("there is no store yet, so it can be made with any model: start the server with this one", field="model")
    with _lease(store):
        pass  # a server at work is reported before the model is loaded, which takes long
    base, arithmetic = open_base(settings)  # chosen anew: what is pinned is of the old base
    check_editors(base, settings)
    if base.is_pinned_as(pinned.base_fingerprint):
        return False
    with _lease(store) as fence:
        context = _make_context(store, base, settings)
        refuse = partial(_refuse, base)
        return rebase(context, name=base.name, arithmetic=arithmetic, refuse=refuse, fence=fence, author=author)


@contextmanager
def _lease(store: Store) -> Iterator[int]:
    """The lease of the store, under a new fence. Raises Conflict while a worker holds it."""
    with store.write() as connection:
        owner = heads.read_lease_owner(connection)
        dead = owner if owner is not None and is_dead(owner) else None
        fence = heads.take_lease(connection, new_owner_name(), lease_s=LEASE_S, is_only_server=store.is_sqlite, dead_owner=dead)
    if fence is None:
        raise Conflict("a server works on this store: stop it, or wait a minute after it was killed, then repeat the command")
    try:
        yield fence
    finally:
        with store.write() as connection:
            heads.release_lease(connection, fence)


def _refuse(base: Base, edit: Edit) -> str | None:
    """Why a base cannot hold an edit, with the field; None if it can."""
    try:
        check_lengths(base, [edit], is_batch=False)
    except Refused as refused:
        return f"{refused.field}: {refused.message}"
    return None


def _make_context(store: Store, base: Base, settings: Settings) -> LifecycleContext:
    """What the verb needs. Nobody asks this process for an answer, so it follows no head."""
    checkpoints = Checkpoints(settings.checkpoints, fingerprint=base.fingerprint)
    follower = HeadFollower(store, checkpoints, _ignore)
    return LifecycleContext(store=store, checkpoints=checkpoints, follower=follower, clock=store.clock)


def _ignore(_published: PublishedHead) -> None:
    """Do nothing."""
