"""The editors as the lifecycle sees them: callables bound to one base model. Tests bind others that train nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.edit import Edit
from service.editors.protocol import Fitted, Hooks, Item
from service.lm.overlay import Overlay


def _unscored(overlay: Overlay, edit: Edit) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Editors:
    """`baft(parent, new, window, seed, hooks)` adds `new` to the parent's adapter and replays `window`; `locft(items, seed,
    hooks)` trains from the base. `base_answer(edit)` is what the base model says to the edit's prompt; `score(overlay, edit)`
    asks an edit's probes and returns what its report gains.
    """

    baft: Callable[[Overlay, Sequence[Item], Sequence[Item], int, Hooks], Fitted]
    locft: Callable[[Sequence[Item], int, Hooks], Fitted]
    base_answer: Callable[[Edit], str]
    score: Callable[[Overlay, Edit], Mapping[str, Any]] = _unscored
