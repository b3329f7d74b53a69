"""A cache of live sets in the process. The rows of a version never change, so a cached set stays valid.

Each `Store` has one cache. It is bounded; a miss costs time only.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from sqlalchemy.engine import Connection

from service.domain.liveset import LiveSet

OPTION = "errata_live_sets"  # the execution option by which connections find the cache of their store
CAPACITY = 6  # sets; the items of versions with one root are shared, so a set of 100,000 adds some 10 MB to its root's 60


class LiveSetCache:
    """The least recently used sets are dropped. A set's name identifies one published version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: OrderedDict[Hashable, LiveSet] = OrderedDict()

    def get(self, name: Hashable) -> LiveSet | None:
        """The set of a name, or None."""
        with self._lock:
            if name in self._sets:
                self._sets.move_to_end(name)
            return self._sets.get(name)

    def put(self, name: Hashable, live_set: LiveSet) -> None:
        """Add a set, and drop the least recently used one."""
        with self._lock:
            self._sets[name] = live_set
            self._sets.move_to_end(name)
            while len(self._sets) > CAPACITY:
                self._sets.popitem(last=False)

    def clear(self) -> None:
        """Drop all sets."""
        with self._lock:
            self._sets.clear()


def cache_of(connection: Connection) -> LiveSetCache:
    """The cache of a connection's store; an empty one for a connection without a store."""
    cache = connection.get_execution_options().get(OPTION)
    return cache if isinstance(cache, LiveSetCache) else LiveSetCache()
