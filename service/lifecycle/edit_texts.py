"""The texts of edits by their words, for one process. The text of an edit never changes, so each is read once."""

import threading

from service.editors.text_index import TextIndex
from service.lm.scope import Scope
from service.store import edits
from service.store.database import Store


class EditTexts:
    """Finds the edits whose prompts a scope may cover, by sequence number. Empty until the first search."""

    def __init__(self) -> None:
        self._index = TextIndex()
        self._read_to = 0  # the largest sequence number
        self._lock = threading.Lock()

    def find(self, store: Store, scope: Scope) -> set[int]:
        """The sequence numbers of all edits of the store whose prompts the scope covers, and of some more."""
        with self._lock:
            with store.read() as connection:
                for seq, _, text in edits.read_texts_after(connection, self._read_to):
                    self._index.add(seq, text)
                    self._read_to = seq
            return self._index.find(scope)
