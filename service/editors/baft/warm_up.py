"""Warm-up: computing ahead what every fit on the same weights needs, the pool of neutral rows and the questions to its overlay.

A fit computes missing values itself. A warm-up at server start and after a retrain takes that time out of the next edit.
"""

from collections.abc import Callable

from service.editors.baft.preserve_term import prepare_pool
from service.editors.baft.row_runner import RowRunner
from service.editors.baft.settings import BaftSettings
from service.editors.baft.trainable import identity_adapter
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks, PrepareQuestions
from service.lm.base import Base
from service.lm.chat import template_tail
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
    prepare_questions: PrepareQuestions | None = None,
) -> None:
    """Fill the cache for fits on top of `overlay`, and compute ahead what is asked of their overlays. `ahead`: the overlay may
    never be published. Changes no result.

    Raises FitCancelled if `hooks` say so.
    """
    hooks = hooks or Hooks()
    blocks, last = settings.blocks_of(base.anatomy.family, base.anatomy.depth), settings.last_tokens(template_tail(base))
    runner = RowRunner(view_of(Overlay(overlay.tensors)), min(blocks), last, True, hooks)
    if settings.preserve_weight > 0:
        prepare_pool(runner, neutral, settings, ahead=ahead)
    if prepare_questions is not None:
        adapter = overlay.adapter or identity_adapter(base.anatomy.width, blocks, last, settings)
        prepare_questions(Overlay(overlay.tensors, adapter), hooks, ahead)
