"""What every editing method takes and gives. Knows no method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from service.domain.edit import Edit
from service.domain.errors import ServiceError
from service.lm.overlay import Overlay
from service.lm.row_groups import ROWS_AT_ONCE, split_in_order

Element = TypeVar("Element")


class FitFailed(ServiceError):
    """A fit met numbers that are not finite, or could not be done at all. Nothing of it is kept."""


class FitCancelled(ServiceError):
    """A fit was told to stop. Nothing of it is kept."""


class FitOverdue(ServiceError):
    """A fit took longer than it may. Nothing of it is kept."""


@dataclass(frozen=True)
class FitItem:
    """What an overlay is asked to say: `edit.prompt` is answered with `target`.

    A tombstone's target is the base model's own answer; the rephrases of its edit say the retracted answer and are not learned.
    A consolidated item is said by the replaced tensors already: a fit on top of them only has to keep it.
    """

    edit: Edit
    target: str
    is_tombstone: bool = False
    is_consolidated: bool = False


@dataclass(frozen=True)
class FitResult:
    """A fitted overlay that nobody has published.

    `reports` holds one JSON object per new item, by edit id. `lost` names the items, new or of the window, that the overlay does
    not answer greedily on every surface. `scores` holds `retention` (share of all items answered) and `canary` (share of unseen
    neutral sentences that the overlay continues greedily as the base model does), and counts that a method adds.
    """

    overlay: Overlay
    reports: Mapping[str, Mapping[str, Any]]
    lost: tuple[str, ...]
    scores: Mapping[str, float]


def _nothing(*_: object) -> None:
    """Nobody is interested."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Hooks:
    """What a fit asks and tells between its steps: answers go first, progress is shown, and it may be told to stop."""

    yield_to_answers: Callable[[], None] = _nothing
    progress: Callable[[float, str], None] = _nothing
    is_cancelled: Callable[[], bool] = field(default=_never)

    def scale_progress(self, low: float, high: float) -> "Hooks":
        """For a part of the work: what it has done of itself lies between these shares of the whole."""
        return replace(self, progress=lambda share, stage: self.progress(low + (high - low) * share, stage))

    def begin_step(self) -> None:
        """Give way, and raise FitCancelled if the fit is no longer wanted."""
        self.yield_to_answers()
        if self.is_cancelled():
            raise FitCancelled("the fit was cancelled")

    def split(self, rows: Sequence[Element], tokens: Callable[[Element], int]) -> Iterator[Sequence[Element]]:
        """The rows, of so many `tokens` each, in parts that are a step each."""
        for piece in split_in_order([tokens(row) for row in rows], rows=ROWS_AT_ONCE):
            self.begin_step()
            yield rows[piece.start : piece.stop]
