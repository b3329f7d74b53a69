"""Live sets read last, kept in process: rows of a version never change, so a set that was read once need not be read again.

One memory belongs to one `Store`. It is bounded, and forgetting costs time only.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from sqlalchemy.engine import Connection

from service.domain.liveset import LiveSet

OPTION = "errata_live_sets"  # the execution option by which an engine's connections find their store's memory
CAPACITY = 6  # sets; the items of versions with one root are shared, so a set of 100,000 adds some 10 MB to its root's 60


class LiveSetCache:
    """The sets used last, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: OrderedDict[Hashable, LiveSet] = OrderedDict()

    def get(self, name: Hashable) -> LiveSet | None:
        """The set of a name, if it is still here."""
        with self._lock:
            if name in self._sets:
                self._sets.move_to_end(name)
            return self._sets.get(name)

    def put(self, name: Hashable, live_set: LiveSet) -> None:
        """Remember a set, and forget the one that was not used for longest."""
        with self._lock:
            self._sets[name] = live_set
            self._sets.move_to_end(name)
            while len(self._sets) > CAPACITY:
                self._sets.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._sets.clear()


def cache_of(connection: Connection) -> LiveSetCache:
    """The memory of the store that a connection belongs to; an empty one for a connection of no store."""
    found = connection.get_execution_options().get(OPTION)
    return found if isinstance(found, LiveSetCache) else LiveSetCache()
