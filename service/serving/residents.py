"""Which versions can answer at once: their views and adapters, few enough to fit, and the one that is the head.

Versions whose replaced tensors are the same share one view. Knows no requests.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from service.domain.errors import Conflict, NotFound
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import EMPTY, Overlay, View, make_view


@dataclass(frozen=True, eq=False)
class Resident:
    """A version that can answer. Whoever holds it may use it, whatever happens to the list it came from."""

    version: int
    view: View
    adapter: Adapter | None


class Residents:
    """At most `limit` versions, the longest unused leaving first; the base (version 0) and the head always stay."""

    def __init__(self, base: Base, limit: int) -> None:
        self._base = base
        self._limit = max(limit, 2)  # the base and the head
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._views: WeakValueDictionary[str, View] = WeakValueDictionary()
        self._kept: OrderedDict[int, Resident] = OrderedDict()
        self._head = (0, 0)
        self._kept[0] = Resident(0, self.view_of(EMPTY), None)

    @property
    def head(self) -> tuple[int, int]:
        """The version that answers by default, and its epoch."""
        with self._lock:
            return self._head

    def view_of(self, overlay: Overlay) -> View:
        """The view with an overlay's tensors, shared by all who have the same ones."""
        digest = overlay.tensors_digest
        with self._building:  # two builders of one view would hold its tensors twice
            found = self._views.get(digest)
            if found is None:
                found = make_view(self._base, overlay.tensors)
                self._views[digest] = found
            return found

    def adopt(self, version: int, overlay: Overlay) -> None:
        """Makes a version able to answer. A version is immutable, so one that is here already stays as it is."""
        if self.has(version):
            return
        adapter = overlay.adapter.to(self._base.device) if overlay.adapter else None
        resident = Resident(version, self.view_of(overlay), adapter)
        with self._lock:
            self._kept.setdefault(version, resident)
            self._kept.move_to_end(version)
            self._evict(version)

    def has(self, version: int) -> bool:
        """Whether a version can answer now."""
        with self._lock:
            return version in self._kept

    def set_head(self, version: int, epoch: int) -> None:
        """Moves the head to a version that is here already, so that no request ever waits for it."""
        with self._lock:
            if version not in self._kept:
                raise NotFound("The version to answer with is not loaded.", field="version")
            self._head = (version, epoch)

    def drop(self, version: int) -> None:
        """Forgets a version; requests that hold it end on it."""
        with self._lock:
            if version in (0, self._head[0]):
                raise Conflict("The base and the head cannot be dropped.", field="version")
            self._kept.pop(version, None)

    def choose(self, version: int | None) -> tuple[Resident, int]:
        """The resident that a request is to be answered by (None: the head), and the epoch of this moment."""
        with self._lock:
            head, epoch = self._head
            wanted = head if version is None else version
            if wanted not in self._kept:
                raise NotFound("The version asked for is not loaded.", field="version")
            self._kept.move_to_end(wanted)
            return self._kept[wanted], epoch

    def _evict(self, newest: int) -> None:
        staying = {0, self._head[0], newest}
        for version in [kept for kept in self._kept if kept not in staying]:
            if len(self._kept) <= self._limit:
                return
            del self._kept[version]
