"""What every fit on the same weights needs, made before the first one asks: the pool of neutral rows and the canary.

A fit makes what is missing itself; doing it at the start of the server and after a retrain keeps that time out of the next edit.
"""

from collections.abc import Callable

from service.editors.baft.execution import Runs
from service.editors.baft.preserve_term import pool_of
from service.editors.baft.settings import BaftSettings
from service.editors.baft.trainable import identity_adapter
from service.editors.canary import prepared_canary
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.overlay import Overlay, View


def warm_up(
    base: Base,
    view_of: Callable[[Overlay], View],
    overlay: Overlay,
    *,
    settings: BaftSettings,
    neutral: NeutralSentences,
    hooks: Hooks | None = None,
    ahead: bool = False,
) -> None:
    """Prepare what fits on top of `overlay` will ask for; `ahead`: if it is ever published. Changes no result.

    Raises FitCancelled if `hooks` say so.
    """
    hooks = hooks or Hooks()
    blocks = settings.blocks_of(base.anatomy.family, base.anatomy.depth)
    runs = Runs(view_of(Overlay(overlay.tensors)), min(blocks), settings.last, True, hooks)
    if settings.preserve_weight > 0:
        pool_of(runs, neutral, settings, ahead=ahead)
    adapter = overlay.adapter or identity_adapter(base.anatomy.width, blocks, settings)
    prepared_canary(neutral, runs.view, adapter, hooks, ahead=ahead)
