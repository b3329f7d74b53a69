"""The rows of one retrain, packed: 100,000 rows take some megabytes instead of as many Python objects. Knows no model."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from service.editors.examples import ItemRow
from service.lm.prompts import Row


class PackedRows(Sequence[Row]):
    """Rows in their order: rows to learn, rows to keep, contrast rows and written questions to keep. Reading a row makes a new
    `Row`.
    """

    def __init__(
        self,
        learned: Iterable[ItemRow] = (),
        kept: Iterable[Row] = (),
        contrast: Iterable[Row] = (),
        questions: Iterable[Row] = (),
    ) -> None:
        self._ids = array("i")
        self._ends = array("q", [0])
        self._prompts = array("i")
        self._bos = bytearray()
        self.is_literal = bytearray()  # by row to learn: 1 if its answer decides whether its item is answered
        self.item = array("i")  # by row to learn: its item
        for item_row in learned:
            self._add(item_row.row)
            self.item.append(item_row.item)
            self.is_literal.append(item_row.is_literal)
        self.learned = len(self._prompts)  # rows below this number are learned, the others kept
        for row in kept:
            self._add(row)
        self.kept = range(self.learned, len(self))
        for row in contrast:
            self._add(row)
        self.contrast = range(self.kept.stop, len(self))
        for row in questions:
            self._add(row)
        self.questions = range(self.contrast.stop, len(self))

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
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
        return sum(numbers.itemsize * len(numbers) for numbers in arrays) + len(self._bos) + len(self.is_literal)

    def _add(self, row: Row) -> None:
        self._ids.extend(row.ids)
        self._ends.append(len(self._ids))
        self._prompts.append(row.prompt_length)
        self._bos.append(row.has_bos)
