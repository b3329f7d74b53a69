"""The canary: how much of what the base model would go on to say, on sentences no fit ever sees, an overlay leaves as it was."""

import torch

from service.editors.answers import answered
from service.editors.neutral import Neutral
from service.lm.intervention import Adapter
from service.lm.overlay import Overlay, View
from service.lm.resume import Prefilled, prefill, resume
from service.lm.score import taken

_CHUNK = 64
_PREPARED_KEPT = 2  # for the tensors of the head and of the last ones


def canary_share(neutral: Neutral, view: View, overlay: Overlay) -> float:
    """Share of the canary rows that the overlay continues greedily exactly as the base model does; 1.0 if there are none.

    `view` carries the overlay's tensors. What an adapter cannot change is computed once per view.
    """
    if not neutral.canary:
        return 1.0
    kept = taken(view, neutral.canary, None) if overlay.adapter is None else _under(neutral, view, overlay.adapter)
    return sum(kept) / len(kept)


@torch.no_grad()
def _under(neutral: Neutral, view: View, adapter: Adapter) -> list[bool]:
    kept: list[bool] = []
    for part in _prepared(neutral, view, adapter):
        seen = resume(view, part, adapter.interventions)
        kept += answered(seen.logits, seen.labels, seen.row_of, len(part), 0.0).tolist()
    return kept


def _prepared(neutral: Neutral, view: View, adapter: Adapter) -> list[Prefilled]:
    rows, at = neutral.canary, adapter.first_block
    parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    return neutral.ready(
        ("canary", view.tensors_digest, at, adapter.last),
        lambda: [prefill(view, part, at=at, last=adapter.last) for part in parts],
        keep=_PREPARED_KEPT,
    )
