"""The editors as the lifecycle sees them: functions bound to one base. Tests bind others that train nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.edit import Edit
from service.editors.protocol import ConsolidatingEditor, IncrementalEditor
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


@dataclass(frozen=True, kw_only=True)
class MonitorProbes:
    """The questions that the monitor asks of an overlay. Each is a bounded piece of work, and returns None where there is
    nothing to ask.

    `between` is called every few questions. An exception that it raises ends the questions.
    """

    answered: Callable[[Overlay, Sequence[Edit]], Sequence[bool]]  # whether each edit is answered on all its surfaces
    inside: Callable[[Overlay, Callable[[], None]], Share | None]
    outside: Callable[[Overlay, Callable[[], None]], Share | None]
    capability: Callable[[Overlay, Callable[[], None]], Share | None]


@dataclass(frozen=True, kw_only=True)
class Editors:
    """The editor of the incremental method, those of the consolidating methods by name, and questions to the model.

    `base_answer(edit)` is the base's answer to the edit's prompt. `score(overlay, edit, between)` asks an edit's probes, calls
    `between` every few questions, and returns what the report gains. `distance(first, second)` is the Frobenius norm of the
    difference of their tensors over the norm of the second's; a missing tensor counts as the base's.
    """

    incremental: IncrementalEditor
    consolidating: Mapping[str, ConsolidatingEditor]
    base_answer: Callable[[Edit], str]
    score: Callable[[Overlay, Edit, Callable[[], None]], Mapping[str, Any]] = _unscored
    distance: Callable[[Overlay, Overlay], float] = _nowhere
    monitor_probes: MonitorProbes | None = None
    canary_size: int = 0  # number of sentences behind the score `canary` of a fit
