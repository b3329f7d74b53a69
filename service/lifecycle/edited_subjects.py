"""Which subjects live edits are about: what is asked about these subjects may change on purpose."""

import threading
from collections.abc import Callable, Collection, Iterator

from service.editors.name_search import make_name_search
from service.store import edits
from service.store.database import Store


class EditedSubjects:
    """Finds the subjects of `known` names that edits name. The text of an edit never changes, so each is read once."""

    def __init__(self) -> None:
        self._names_by_edit: dict[str, frozenset[str]] = {}
        self._search: Callable[[str], Iterator[str]] | None = None
        self._read_to = 0  # the largest sequence number
        self._lock = threading.Lock()

    def find(self, store: Store, known: Collection[str], live_ids: Collection[str]) -> frozenset[str]:
        """The known names that live edits name. `known` is the same in every call."""
        with self._lock:
            self._search = self._search or make_name_search(known)
            self._read_new(store, self._search)
            named = [self._names_by_edit[edit_id] for edit_id in live_ids if edit_id in self._names_by_edit]
        return frozenset().union(*named)

    def _read_new(self, store: Store, search: Callable[[str], Iterator[str]]) -> None:
        with store.read() as connection:
            for seq, edit_id, text in edits.read_texts_after(connection, self._read_to):
                names = frozenset(search(text))
                if names:
                    self._names_by_edit[edit_id] = names
                self._read_to = seq
