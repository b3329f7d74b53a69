"""The inputs and outputs of every editing method, and the two roles of a method. Knows no method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from service.domain.edit import Edit
from service.domain.errors import Refused, ServiceError
from service.editors.known_names import KnownNames
from service.editors.neutral import NeutralSentences
from service.lm.base import Base
from service.lm.overlay import Overlay, View
from service.lm.row_groups import ROWS_AT_ONCE, split_in_order
from service.lm.scope import Scope

Element = TypeVar("Element")


class FitFailed(ServiceError):
    """A fit met numbers that are not finite, or could not be done at all. Nothing of it is kept."""


class FitCancelled(ServiceError):
    """A fit was cancelled. Nothing of it is kept."""


class FitOverdue(ServiceError):
    """A fit exceeded its time limit. Nothing of it is kept."""


class StartElsewhere(Refused):
    """A retrain cannot start from these tensors: they lie elsewhere than the settings name, or another method trained them."""


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
    the overlay does not answer greedily on every surface. `scores` holds `retention` (share of all items answered), and counts
    that a method adds. What the overlay changes elsewhere is measured by its owner.
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


# (overlay, hooks, ahead): `ahead` says that the overlay may never be published.
PrepareQuestions = Callable[[Overlay, Hooks, bool], None]


def prepare_nothing(overlay: Overlay, hooks: Hooks, ahead: bool) -> None:
    """Where nothing is asked after a fit."""


def no_prompts() -> Sequence[str]:
    """Where no real prompts are kept."""
    return ()


@dataclass(frozen=True, eq=False)
class EditorContext:
    """What an editor may use of the server. `view_of` gives shared views, and `sample_prompts` real prompts whose answers should
    stay as the base's. `prepare_questions` computes ahead what the server asks of every fit's overlay, given an adapter of its
    shape. `names` may stand in the place of an edit's subject.
    """

    base: Base
    view_of: Callable[[Overlay], View]
    neutral: NeutralSentences
    sample_prompts: Callable[[], Sequence[str]] = no_prompts
    prepare_questions: PrepareQuestions = prepare_nothing
    names: KnownNames = field(default_factory=KnownNames)


class IncrementalEditor(Protocol):
    """Makes edits live at once, one fit after another on the same overlay.

    `fit` and `prepare` raise FitCancelled if `hooks` say so, and keep nothing then. `firmest` is the largest firmness of a fit: 0
    for an editor that cannot hold the rest of the model more firmly than it does.
    """

    @property
    def firmest(self) -> int: ...

    def fit(
        self,
        parent: Overlay,
        new: Sequence[FitItem],
        window: Sequence[FitItem],
        *,
        seed: int,
        hooks: Hooks,
        firmness: int = 0,
    ) -> FitResult:
        """Fit `new` on top of `parent`, and keep the items of `window` answered. The parent's tensors stay as they are. The
        greater the `firmness`, the more a change of anything else weighs.

        The same arguments give the same bytes on one machine. Raises FitFailed on numbers that are not finite, Refused for text
        that does not fit the model.
        """

    def scope_of(self, items: Sequence[FitItem]) -> Scope | None:
        """The prompts on which an overlay that carries `items` may answer otherwise than its tensors, but for those that only the
        rows of a fit add. None: every prompt.
        """

    def prepare(self, overlay: Overlay, *, hooks: Hooks, ahead: bool) -> None:
        """Compute what the first fit on an overlay would have to compute. `ahead`: the overlay may never be published. Changes
        no result.
        """


class ConsolidatingEditor(Protocol):
    """Trains all live edits together into tensors, in a retrain."""

    def fit(self, items: Sequence[FitItem], start: Overlay, *, seed: int, hooks: Hooks) -> FitResult:
        """Train `items` from the base (a *major* retrain), or from the tensors of `start` if it has any (a *minor* one). The
        overlay of the result has no adapter.

        The same arguments give the same bytes on one machine. Raises StartElsewhere if training cannot begin from `start`,
        FitFailed on numbers that are not finite, FitCancelled if `hooks` say so.
        """
