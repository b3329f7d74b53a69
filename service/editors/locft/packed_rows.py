"""The rows of one retrain, packed: 100,000 of them are some megabytes, not as many Python objects. Knows no model."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from service.editors.examples import AskedRow
from service.lm.prompts import Row


class RowStore(Sequence[Row]):
    """Rows in the order they were added, each made anew when it is asked for. Rows that must stay come after those to learn."""

    def __init__(self, asked: Iterable[AskedRow] = (), kept: Iterable[Row] = ()) -> None:
        self._ids = array("i")
        self._ends = array("q", [0])
        self._prompts = array("i")
        self._bos = bytearray()
        self.literal = bytearray()  # by row to learn: 1 if its answer decides whether its item is taken
        self.item = array("i")  # by row to learn: its item
        for each in asked:
            self._add(each.row)
            self.item.append(each.item)
            self.literal.append(each.literal)
        self.asked = len(self._prompts)  # rows below this number are learned, the others kept
        for row in kept:
            self._add(row)

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        ids = self._ids[self._ends[index] : self._ends[index + 1]]
        return Row(tuple(ids), self._prompts[index], bool(self._bos[index]))

    def length(self, index: int) -> int:
        """Tokens of one row."""
        return self._ends[index + 1] - self._ends[index]

    def targets(self, index: int) -> int:
        """Target tokens of one row."""
        return self.length(index) - self._prompts[index]

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return len(self._ids)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        arrays = (self._ids, self._ends, self._prompts, self.item)
        return sum(each.itemsize * len(each) for each in arrays) + len(self._bos) + len(self.literal)

    def _add(self, row: Row) -> None:
        self._ids.extend(row.ids)
        self._ends.append(len(self._ids))
        self._prompts.append(row.prompt_length)
        self._bos.append(row.has_bos)
