"""The inputs and outputs of every editing method. Knows no method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from service.domain.edit import Edit
from service.domain.errors import Refused, ServiceError
from service.lm.overlay import Overlay
from service.lm.row_groups import ROWS_AT_ONCE, split_in_order

Element = TypeVar("Element")


class FitFailed(ServiceError):
    """A fit met numbers that are not finite, or could not be done at all. Nothing of it is kept."""


class FitCancelled(ServiceError):
    """A fit was cancelled. Nothing of it is kept."""


class FitOverdue(ServiceError):
    """A fit exceeded its time limit. Nothing of it is kept."""


class StartElsewhere(Refused):
    """The tensors that a retrain should start from were trained at another location than the settings name."""


@dataclass(frozen=True)
class FitItem:
    """One answer that a fit trains or keeps: `edit.prompt` is answered with `target`.

    A tombstone's target is the base model's own answer. The rephrases of its edit state the retracted answer and are not learned.
    The replaced tensors already answer a consolidated item: a fit on top of these tensors only has to keep the answer.
    """

    edit: Edit
    target: str
    is_tombstone: bool = False
    is_consolidated: bool = False


@dataclass(frozen=True)
class FitResult:
    """A fitted overlay, not yet published.

    `reports` holds one JSON object per new item, by edit id. `lost` holds the edit ids of the items, new or of the window, that
    the overlay does not answer greedily on every surface. `scores` holds `retention` (share of all items answered) and `canary`
    (share of unseen neutral sentences that the overlay continues greedily as the base model does), and counts that a method adds.
    """

    overlay: Overlay
    reports: Mapping[str, Mapping[str, Any]]
    lost: tuple[str, ...]
    scores: Mapping[str, float]


def _ignore(*_: object) -> None:
    """Do nothing."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Hooks:
    """A fit's calls to its owner between steps: `yield_to_answers` lets answers go first, `progress` takes (share, stage)."""

    yield_to_answers: Callable[[], None] = _ignore
    progress: Callable[[float, str], None] = _ignore
    is_cancelled: Callable[[], bool] = field(default=_never)

    def scale_progress(self, low: float, high: float) -> "Hooks":
        """The same hooks for a part of the work: the part's shares 0 to 1 become `low` to `high` of the whole."""
        return replace(self, progress=lambda share, stage: self.progress(low + (high - low) * share, stage))

    def begin_step(self) -> None:
        """Give way to answers. Raises FitCancelled if the fit is cancelled."""
        self.yield_to_answers()
        if self.is_cancelled():
            raise FitCancelled("the fit was cancelled")

    def split(self, rows: Sequence[Element], tokens: Callable[[Element], int]) -> Iterator[Sequence[Element]]:
        """The rows in parts of bounded size, each its own step; `tokens` gives the length of a row."""
        for part in split_in_order([tokens(row) for row in rows], rows=ROWS_AT_ONCE):
            self.begin_step()
            yield rows[part.start : part.stop]
