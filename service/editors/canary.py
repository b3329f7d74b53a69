"""The canary: the share of unseen neutral sentences that an overlay continues greedily as the base model does."""

from collections.abc import Sequence

import torch

from service.editors.answer_margins import answered_mask
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.cached_step import PrefilledRows, prefill, resume
from service.lm.intervention import Adapter
from service.lm.overlay import Overlay, View
from service.lm.scoring import greedy_matches

_KEPT_PREPARATIONS = 2  # for the tensors of the head and for those in training


def canary_share(neutral: NeutralSentences, view: View, overlay: Overlay, hooks: Hooks | None = None) -> float:
    """Share of the canary rows that the overlay continues greedily exactly as the base model does; 1.0 if there are none.

    `view` has the overlay's tensors. The states that an adapter cannot change are computed once per view. Raises FitCancelled if
    `hooks` say so.
    """
    hooks = hooks or Hooks()
    if not neutral.canary:
        return 1.0
    matches: list[bool] = []
    if overlay.adapter is None:
        for rows in hooks.split(neutral.canary, len):
            matches += greedy_matches(view, rows, None)
    else:
        matches = _matches_under(neutral, view, overlay.adapter, hooks)
    return sum(matches) / len(matches)


def prepare_canary(
    neutral: NeutralSentences, view: View, adapter: Adapter, hooks: Hooks, *, ahead: bool = False
) -> Sequence[PrefilledRows]:
    """The canary rows, prefilled up to the adapter's first block, in parts. Cached by view and first block."""
    first_block, last = adapter.first_block, adapter.last
    return neutral.get_or_make(
        ("canary", view.tensors_digest, first_block, last),
        lambda: [prefill(view, rows, first_block=first_block, last=last) for rows in hooks.split(neutral.canary, len)],
        keep=_KEPT_PREPARATIONS,
        ahead=ahead,
    )


@torch.no_grad()
def _matches_under(neutral: NeutralSentences, view: View, adapter: Adapter, hooks: Hooks) -> list[bool]:
    matches: list[bool] = []
    for part in prepare_canary(neutral, view, adapter, hooks):
        hooks.begin_step()
        output = resume(view, part, adapter.interventions)
        matches += answered_mask(output.logits, output.labels, output.row_of, len(part), 0.0).tolist()
    return matches
