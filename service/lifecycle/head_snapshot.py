"""The head as one read saw it."""

from dataclasses import dataclass

from service.domain.errors import Corrupt, Unreadable
from service.domain.liveset import LiveSet
from service.domain.version import Head, Version
from service.lifecycle.context import LifecycleContext
from service.lm.overlay import Overlay
from service.store import heads, versions


@dataclass(frozen=True)
class HeadSnapshot:
    """What a job works on: the head's row, its version and its live set, from one consistent read. `overlay_epoch` is the epoch
    since which the head has its overlay.
    """

    row: Head
    version: Version
    live_set: LiveSet
    overlay_epoch: int

    def is_replaced(self, context: LifecycleContext) -> bool:
        """Whether this process answers with another overlay by now. A head that states other edits has the same one."""
        return context.follower.current.overlay_epoch > self.overlay_epoch


def read_head(context: LifecycleContext) -> HeadSnapshot:
    """Read the head in one consistent state: it is read again if it moved while its live set was read."""
    while True:
        with context.store.read() as connection:
            head = heads.read(connection)
            snapshot = HeadSnapshot(
                head,
                versions.get(connection, head.version),
                versions.read_live_set(connection, head.version),
                heads.find_overlay_epoch(connection, head.epoch),
            )
            if heads.read(connection).epoch == head.epoch:
                return snapshot


def load_head_overlay(context: LifecycleContext, version: Version) -> Overlay:
    """The overlay that a fit starts from, from memory if this process answers with it. Raises Unreadable if the overlay cannot
    be loaded, also if its bytes are damaged: the fit is not at fault, and another head follows soon.
    """
    current = context.follower.current
    if current.version == version.number:
        return current.overlay
    try:
        return context.checkpoints.get_overlay(version)
    except Corrupt as error:
        raise Unreadable("the checkpoint of the head is damaged; it is being replaced") from error
