"""LocFT-BF: train one module's weights over all live edits, breadth-first, from the base weights.

Every epoch passes over all edits in mini-batches before any edit is seen again. In exact arithmetic the result is a function of
(base, items, settings, neutral sentences, seed): an edit that is no longer among the items leaves no trace.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from service.editors.canary import canary_share
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training import Tuning
from service.editors.neutral import Neutral
from service.editors.protocol import Fitted, Hooks, Item
from service.editors.rows import AskedRow, asked_rows, kept_rows, speaks_against
from service.lm.base import Base
from service.lm.blocks import Location
from service.lm.overlay import Overlay, View, view
from service.lm.prompts import Row, encode_free_row
from service.lm.score import row_losses, taken


def fit_locft(
    base: Base, items: Sequence[Item], *, settings: LocftSettings, neutral: Neutral, seed: int, hooks: Hooks | None = None
) -> Fitted:
    """Train all `items` into one location of the base. The overlay has no adapter: the window it leaves is empty.

    Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Refused for text that does not fit or a
    location that the model does not have.
    """
    hooks = hooks or Hooks()
    started = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    private = view(base)
    location = Location(*settings.location_of(base.anatomy.family, base.anatomy.depth))
    asked = asked_rows(base, items, eos=settings.eos, learn_probes=settings.learn_probes)
    tuning = Tuning(
        view=private,
        names=base.anatomy.parameters_at(location),
        block=location.block,
        rate=settings.rate_of(base.anatomy.family, base.anatomy.depth, base.anatomy.width),
        asked=[row.row for row in asked],
        kept=_kept(private, items, settings, neutral, generator),
        settings=settings,
        generator=generator,
    )
    master, epochs = tuning.run(hooks)
    overlay = Overlay({name: tensor.to(base.dtype).clone() for name, tensor in master.items()})
    served = view(base, overlay.tensors)
    literal = [row for row in asked if row.literal]
    answers = taken(served, [row.row for row in literal], None) if literal else []
    lost = {row.item for row, answer in zip(literal, answers, strict=True) if not answer}
    milliseconds = int((time.monotonic() - started) * 1000)
    scores = {"retention": 1.0 - len(lost) / max(len(items), 1), "canary": canary_share(neutral, served, overlay)}
    reports = _reports(
        items, literal, row_losses(served, [row.row for row in literal], None) if literal else None, lost, epochs, milliseconds
    )
    return Fitted(overlay, reports, tuple(items[index].edit.id for index in sorted(lost)), scores)


def _kept(on: View, items: Sequence[Item], settings: LocftSettings, neutral: Neutral, generator: torch.Generator) -> list[Row]:
    """Neutral sentences whole, since every position of them is computed by the tuned weights, and trained locality probes."""
    if settings.preserve_weight == 0:
        return []
    drawn = neutral.draw(settings.preserve_pool, generator, speaks_against=speaks_against(items))
    whole = [encode_free_row(on.base, row.ids, 2 if row.bos else 1) for row in drawn]
    return whole + (kept_rows(on.base, on, items) if settings.learn_probes else [])


def _reports(
    items: Sequence[Item], literal: Sequence[AskedRow], losses: Tensor | None, lost: set[int], epochs: int, milliseconds: int
) -> dict[str, Mapping[str, Any]]:
    """One report an item; epochs and time are those of the whole retrain."""
    values = [] if losses is None else losses.tolist()
    return {
        item.edit.id: {
            "method": "locft",
            "steps": epochs,
            "fitted_together": len(items),
            "loss": max(loss for row, loss in zip(literal, values, strict=True) if row.item == index),
            "milliseconds": milliseconds,
            "taken": index not in lost,
            "already": False,
        }
        for index, item in enumerate(items)
    }
