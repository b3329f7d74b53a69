"""The versions in memory: their views and adapters, and which of them is the head.

Versions with the same replaced tensors share one view. Knows no requests.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from service.domain.errors import Conflict, NotFound
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.lm.stated_edits import NOTHING_STATED, StatedEdits


@dataclass(frozen=True, eq=False)
class Resident:
    """A version in memory. A request that holds it may use it, even after its eviction."""

    version: int
    view: View
    adapter: Adapter | None
    stated: StatedEdits = NOTHING_STATED


class Residents:
    """At most `limit` versions. The least recently used is evicted first; the base alone, which is
    the version `base_version`, and the head always stay."""

    def __init__(self, base: Base, limit: int, *, base_version: int = 0) -> None:
        self._base = base
        self._base_version = base_version
        self._limit = max(limit, 2)  # the base and the head
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._views: WeakValueDictionary[str, View] = WeakValueDictionary()
        self._residents: OrderedDict[int, Resident] = OrderedDict()
        self._head = (base_version, 0)
        self._residents[base_version] = Resident(base_version, self.view_of(EMPTY), None)

    @property
    def head(self) -> tuple[int, int]:
        """The version that answers by default, and its epoch."""
        with self._lock:
            return self._head

    def view_of(self, overlay: Overlay) -> View:
        """The view with an overlay's tensors. Overlays with the same tensors share one view."""
        digest = overlay.tensors_digest
        with self._building:  # concurrent builds of one view would hold its tensors twice
            shared = self._views.get(digest)
            if shared is None:
                shared = make_view(self._base, overlay.tensors)
                self._views[digest] = shared
            return shared

    def adopt(self, version: int, overlay: Overlay, stated: StatedEdits = NOTHING_STATED) -> None:
        """Load a version with what it states. A version is immutable, so a loaded one stays as it is."""
        if self.has(version):
            return
        adapter = overlay.adapter.to(self._base.device) if overlay.adapter else None
        resident = Resident(version, self.view_of(overlay), adapter, stated)
        with self._lock:
            self._residents.setdefault(version, resident)
            self._residents.move_to_end(version)
            self._evict(version)

    def has(self, version: int) -> bool:
        """Whether a version can answer now."""
        with self._lock:
            return version in self._residents

    def set_head(self, version: int, epoch: int) -> None:
        """Move the head to a loaded version, so that no request waits for a load. Raises NotFound if it is not loaded."""
        with self._lock:
            if version not in self._residents:
                raise NotFound("The version to answer with is not loaded.", field="version")
            self._head = (version, epoch)

    def drop(self, version: int) -> None:
        """Unload a version. Requests that hold it finish on it. Raises Conflict for the base and the head."""
        with self._lock:
            if version in (self._base_version, self._head[0]):
                raise Conflict("The base and the head cannot be dropped.", field="version")
            self._residents.pop(version, None)

    def choose(self, version: int | None) -> tuple[Resident, int]:
        """The resident that answers a request (None: the head), and the current epoch. Raises NotFound if it is not loaded."""
        with self._lock:
            head, epoch = self._head
            number = head if version is None else version
            if number not in self._residents:
                raise NotFound("The version asked for is not loaded.", field="version")
            self._residents.move_to_end(number)
            return self._residents[number], epoch

    def _evict(self, newest: int) -> None:
        exempt = {self._base_version, self._head[0], newest}
        for version in [resident for resident in self._residents if resident not in exempt]:
            if len(self._residents) <= self._limit:
                return
            del self._residents[version]
