"""The editors as the lifecycle sees them: functions bound to one base. Tests bind others that train nothing."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.domain.edit import Edit
from service.domain.errors import Unavailable
from service.editors.protocol import ConsolidatingEditor, Hooks, IncrementalEditor
from service.lm.overlay import Overlay


def _unscored(overlay: Overlay, edit: Edit, between: Callable[[], None]) -> Mapping[str, Any]:
    return {}


def _nowhere(one: Overlay, other: Overlay) -> float:
    return 0.0


@dataclass(frozen=True)
class Share:
    """A share of `n` questions: of those asked, or of the base's result."""

    score: float
    n: int


class Locality(Protocol):
    """What a version keeps of the base model's answers and prose, by group."""

    @property
    def subjects(self) -> Collection[str]:
        """The subjects that are asked about."""

    def measure(
        self, overlay: Overlay, parent: Overlay, edits: Sequence[Edit], edited: Collection[str], hooks: Hooks
    ) -> dict[str, Any]:
        """Every group of a candidate with new edits on top of `parent`; `edited` are the subjects of live edits."""


@dataclass(frozen=True, kw_only=True)
class MonitorProbes:
    """The questions that the monitor asks of an overlay. Each is a bounded piece of work, and returns None where there is
    nothing to ask.

    `between` is called every few questions. An exception that it raises ends the questions.
    """

    answered: Callable[[Overlay, Sequence[Edit]], Sequence[bool]]  # whether each edit is answered on all its surfaces
    inside: Callable[[Overlay, Callable[[], None]], Share | None]
    capability: Callable[[Overlay, Callable[[], None]], Share | None]


@dataclass(frozen=True, kw_only=True)
class Editors:
    """The editor of the incremental method, those of the consolidating methods by name, and questions to the model.

    `base_answer(edit)` is the base's answer to the edit's prompt. `score(overlay, edit, between)` asks an edit's probes, calls
    `between` every few questions, and returns what the report gains. `distance(first, second)` is the Frobenius norm of the
    difference of their tensors over the norm of the second's; a missing tensor counts as the base's.

    Fits of these editors use the first `neutral_sentences` of the base's neutral sentences. `with_first(count)` are the same
    editors whose fits use fewer.
    """

    incremental: IncrementalEditor
    consolidating: Mapping[str, ConsolidatingEditor]
    base_answer: Callable[[Edit], str]
    score: Callable[[Overlay, Edit, Callable[[], None]], Mapping[str, Any]] = _unscored
    distance: Callable[[Overlay, Overlay], float] = _nowhere
    monitor_probes: MonitorProbes | None = None
    locality: Locality | None = None
    neutral_sentences: int = 0
    has_all: bool = True  # whether these are all neutral sentences that there will be
    with_first: Callable[[int], "Editors"] | None = None


class EditorsByPart:
    """The editors of a server that is still sampling its neutral sentences: first those of a first part, later those of all.

    One thread grows them, others read.
    """

    def __init__(self, newest: Editors) -> None:
        self._newest = newest

    @property
    def newest(self) -> Editors:
        """The editors whose fits use all sentences that fits may use now."""
        return self._newest

    def grow(self, editors: Editors) -> None:
        """Let later fits use more sentences."""
        self._newest = editors

    def has(self, count: int | None) -> bool:
        """Whether a fit that uses the first `count` sentences can be done now; None: all."""
        newest = self._newest
        return newest.has_all or (count is not None and count <= newest.neutral_sentences)

    def of(self, count: int | None) -> Editors:
        """The editors whose fits use the first `count` sentences; None: all. The same count gives the same bytes, however many
        there are now. If there will never be so many, because the settings have changed, these are all.

        Raises Unavailable if they are not there yet.
        """
        newest = self._newest
        if not self.has(count):
            raise Unavailable("the neutral sentences of this fit are not there yet")
        if count is None or newest.with_first is None or count >= newest.neutral_sentences:
            return newest
        return newest.with_first(count)
