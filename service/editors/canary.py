"""The canary: how much of what the base model would go on to say, on sentences no fit ever sees, an overlay leaves as it was."""

from collections.abc import Sequence

import torch

from service.editors.correctness import answered_mask
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.intervention import Adapter
from service.lm.overlay import Overlay, View
from service.lm.resume import PrefilledRows, prefill, resume
from service.lm.scoring import greedy_matches

_PREPARED_KEPT = 2  # for the tensors of the head and for those being trained


def canary_share(neutral: NeutralSentences, view: View, overlay: Overlay, hooks: Hooks | None = None) -> float:
    """Share of the canary rows that the overlay continues greedily exactly as the base model does; 1.0 if there are none.

    `view` carries the overlay's tensors. What an adapter cannot change is computed once per view. Raises FitCancelled if `hooks`
    say so.
    """
    hooks = hooks or Hooks()
    if not neutral.canary:
        return 1.0
    kept: list[bool] = []
    if overlay.adapter is None:
        for rows in hooks.split(neutral.canary, len):
            kept += greedy_matches(view, rows, None)
    else:
        kept = _under(neutral, view, overlay.adapter, hooks)
    return sum(kept) / len(kept)


def prepared_canary(
    neutral: NeutralSentences, view: View, adapter: Adapter, hooks: Hooks, *, ahead: bool = False
) -> Sequence[PrefilledRows]:
    """The canary rows up to where such an adapter begins, in parts; from the last ones used if they are among them."""
    first_block, last = adapter.first_block, adapter.last
    return neutral.ready(
        ("canary", view.tensors_digest, first_block, last),
        lambda: [prefill(view, rows, first_block=first_block, last=last) for rows in hooks.split(neutral.canary, len)],
        keep=_PREPARED_KEPT,
        ahead=ahead,
    )


@torch.no_grad()
def _under(neutral: NeutralSentences, view: View, adapter: Adapter, hooks: Hooks) -> list[bool]:
    kept: list[bool] = []
    for part in prepared_canary(neutral, view, adapter, hooks):
        hooks.begin_step()
        seen = resume(view, part, adapter.interventions)
        kept += answered_mask(seen.logits, seen.labels, seen.row_of, len(part), 0.0).tolist()
    return kept
