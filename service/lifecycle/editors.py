"""The editors as the lifecycle sees them: callables bound to one base model. Tests bind others that train nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.edit import Edit
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lm.overlay import Overlay


def _unscored(overlay: Overlay, edit: Edit, between: Callable[[], None]) -> Mapping[str, Any]:
    return {}


def _nowhere(one: Overlay, other: Overlay) -> float:
    return 0.0


@dataclass(frozen=True)
class Share:
    """So much of `n` questions: a share of those asked, or of what the base model comes to."""

    score: float
    n: int


@dataclass(frozen=True, kw_only=True)
class MonitorProbes:
    """What the monitor may ask of an overlay, each a bounded piece of work; None where there is nothing to ask.

    `between` is called every few questions, and what it raises ends the asking.
    """

    answered: Callable[[Overlay, Sequence[Edit]], Sequence[bool]]  # whether each edit is answered on all of its surfaces
    inside: Callable[[Overlay, Callable[[], None]], Share | None]
    outside: Callable[[Overlay, Callable[[], None]], Share | None]
    capability: Callable[[Overlay, Callable[[], None]], Share | None]


@dataclass(frozen=True, kw_only=True)
class Editors:
    """`baft(parent, new, window, seed, hooks)` adds `new` to the parent's adapter and replays `window`.

    `locft(items, start, seed, hooks)` trains from the base, or from the tensors of `start` if it has any: then Refused with
    the field `start` says that they lie elsewhere than the settings name. `base_answer(edit)` is what the base model says to
    the edit's prompt; `score(overlay, edit, between)` asks an edit's probes, calls `between` every few questions, and
    returns what its report gains; `distance(one, other)` is the Frobenius norm of the difference of their tensors over that of
    the other's, the base's standing where one has none.
    """

    baft: Callable[[Overlay, Sequence[FitItem], Sequence[FitItem], int, Hooks], FitResult]
    locft: Callable[[Sequence[FitItem], Overlay, int, Hooks], FitResult]
    base_answer: Callable[[Edit], str]
    score: Callable[[Overlay, Edit, Callable[[], None]], Mapping[str, Any]] = _unscored
    distance: Callable[[Overlay, Overlay], float] = _nowhere
    monitor_probes: MonitorProbes | None = None
    canary_size: int = 0  # sentences that `canary` in the scores of a fit is a share of
