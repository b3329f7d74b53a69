"""Writing as the worker: a transaction under the head's lock that counts only while the worker's lease holds."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection

from service.domain.version import Head
from service.lifecycle.context import LifecycleContext
from service.store import heads
from service.store.heads import FenceLost

OTHER_BASE = "the store was taken to another base model: start this server again with that one"


@contextmanager
def fenced_write(context: LifecycleContext, fence: int | None) -> Iterator[tuple[Connection, Head]]:
    """A write transaction with the head as it is under its lock. Raises FenceLost if another worker has taken over, or if the
    store was taken to another base model.

    Without a fence the lock alone is held: for work that is done by hand.
    """
    with context.store.write() as connection:
        head = heads.lock(connection)
        heads.check_fence(connection, fence)
        if head.base_fingerprint != context.checkpoints.fingerprint:
            raise FenceLost(OTHER_BASE)
        yield connection, head
