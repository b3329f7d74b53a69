"""What every fit on the same weights needs, made before the first one asks: the pool of neutral rows and the canary.

A fit makes what is missing itself; doing it at the start of the server and after a retrain keeps that time out of the next edit.
"""

from collections.abc import Callable

from service.editors.baft.basis import identity_adapter
from service.editors.baft.material import Runs
from service.editors.baft.preserve import pool_of
from service.editors.baft.settings import BaftSettings
from service.editors.canary import canary_share
from service.editors.neutral import Neutral
from service.lm.base import Base
from service.lm.overlay import Overlay, View


def make_ready(
    base: Base, view_of: Callable[[Overlay], View], overlay: Overlay, *, settings: BaftSettings, neutral: Neutral
) -> None:
    """Prepare what fits on top of `overlay` will ask for. Changes no result."""
    view = view_of(Overlay(overlay.tensors))
    blocks = settings.blocks_of(base.anatomy.family, base.anatomy.depth)

    runs = Runs(view, min(blocks), settings.last, cached=True)
    if settings.preserve_weight > 0:
        pool_of(view, neutral, runs.at, settings, runs.passes)
    adapter = overlay.adapter or identity_adapter(base.anatomy.width, blocks, settings)
    canary_share(neutral, view, Overlay(overlay.tensors, adapter.to(base.device)))
