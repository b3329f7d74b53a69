"""LocFT-BF: train one module's weights over all live edits, breadth-first: *major* from the base, *minor* from a version.

A major retrain is a function of (base, items, settings, neutral sentences, prompts, seed), bit for bit on one machine: an edit
that is no longer among the items leaves no trace. A minor one also depends on where it starts.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.domain.errors import Refused
from service.editors.canary import canary_share
from service.editors.locft.activation_cache import Activations
from service.editors.locft.breadth_first import train_breadth_first
from service.editors.locft.dataset import read
from service.editors.locft.depth_first import train_depth_first
from service.editors.locft.location import TunedLocation, find_tuned_location
from service.editors.locft.packed_rows import RowStore
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training_step import Master, Tuning
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, make_view

_MEGABYTE = 1_000_000
_READING, _TRAINED = 0.05, 0.95  # of the progress, when everything is read and when training ends


@dataclass
class ItemOutcome:
    """How an item's own prompts came out: whether all are answered on every surface, and the largest loss among them."""

    taken: bool = True
    loss: float = 0.0


def fit_locft(
    base: Base,
    items: Sequence[FitItem],
    *,
    settings: LocftSettings,
    neutral: NeutralSentences,
    seed: int,
    hooks: Hooks | None = None,
    start: Overlay = EMPTY,
    prompts: Sequence[str] = (),
) -> FitResult:
    """Train all `items` into one location. The overlay has no adapter: the window it leaves is empty.

    Without `start` a major retrain, from the base. With it a minor one, from its tensors: these say consolidated items already,
    so a sample of them is enough in each epoch; all items are verified in the end, and what was lost is trained again. What must
    stay is in either case what the *base* says: to neutral sentences, trained locality probes and `prompts`.

    Beside the usual scores there are `neutral_rows`, how many neutral sentences it was held to, and, if there are any,
    `rephrases_left_out`, how many trained rephrases do not fit the model or are contradicted.

    Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Unavailable if the disk has no room for the
    activation cache, Refused for text that does not fit, a location that the model does not have, or a start trained elsewhere.
    """
    hooks = hooks or Hooks()
    began = time.monotonic()
    place = find_tuned_location(base.anatomy, settings)
    _require_same_place(start, place)
    private, generator = make_view(base), torch.Generator().manual_seed(seed)
    hooks.progress(0.0, "reading")
    given = read(
        private,
        items,
        prompts,
        settings=settings,
        neutral=neutral,
        generator=generator,
        hooks=hooks.scale_progress(0.0, _READING),
    )
    rows = given.rows
    with Activations(
        private,
        rows,
        block=place.lowest,
        memory_bytes=settings.cache_mb * _MEGABYTE,
        disk_bytes=settings.cache_disk_mb * _MEGABYTE,
    ) as states:
        tuning = Tuning(private, rows, states, settings, generator)
        master = Master(private, place.names, _rate(settings, base, minor=bool(start.tensors)), start.tensors)
        train = train_depth_first if settings.order == "depth" else train_breadth_first
        epochs = train(
            tuning, master, _consolidated(rows, items, minor=bool(start.tensors)), hooks.scale_progress(_READING, _TRAINED)
        )
        overlay = Overlay(master.trained())
        hooks.progress(_TRAINED, "asking every edit once more")
        verdicts = _verdicts(tuning, overlay, len(items), hooks)
    lost = [item.edit.id for item, verdict in zip(items, verdicts, strict=True) if not verdict.taken]
    shared = {
        "method": "locft",
        "mode": "minor" if start.tensors else "major",
        "location": place.said,
        "position": place.rule,
        "epochs": epochs,
        "fitted_together": len(items),
        "milliseconds": int((time.monotonic() - began) * 1000),
        "already": False,
    }
    scores = {
        "retention": 1.0 - len(lost) / max(len(items), 1),
        "canary": canary_share(neutral, make_view(base, overlay.tensors), overlay, hooks),
        "neutral_rows": given.neutral,
        **({"rephrases_left_out": given.left_out} if given.left_out else {}),
    }
    hooks.progress(1.0, "asking every edit once more")
    return FitResult(overlay, _reports(items, verdicts, shared), tuple(lost), scores)


def _require_same_place(start: Overlay, place: TunedLocation) -> None:
    if start.tensors and set(start.tensors) != set(place.names):
        raise Refused("The tensors to start from were trained at another location than the settings name.", field="start")


def _rate(settings: LocftSettings, base: Base, *, minor: bool) -> float:
    """A minor retrain has few steps in which what it should leave alone can come back from Adam's first ones, so they are
    smaller.
    """
    rate = settings.rate_of(base.anatomy.family, base.anatomy.depth, base.anatomy.width)
    return rate * settings.minor_rate if minor else rate


def _consolidated(rows: RowStore, items: Sequence[FitItem], *, minor: bool) -> Tensor:
    """(rows to learn,) bool: what the tensors that training starts from say already. From the base, nothing is."""
    return torch.tensor([minor and items[index].is_consolidated for index in rows.item], dtype=torch.bool)


@torch.no_grad()
def _verdicts(tuning: Tuning, overlay: Overlay, count: int, hooks: Hooks) -> list[ItemOutcome]:
    """Every item's own prompts asked of the tensors as they will be served, without any margin."""
    verdicts = [ItemOutcome() for _ in range(count)]
    for chosen, losses, right in tuning.exam(overlay, hooks):
        for row, loss, answered in zip(chosen, losses, right, strict=True):
            verdict = verdicts[tuning.rows.item[row]]
            verdict.taken &= answered
            verdict.loss = max(verdict.loss, loss)
    return verdicts


def _reports(
    items: Sequence[FitItem], verdicts: Sequence[ItemOutcome], shared: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """One report for each item that is new here; epochs and time are those of the whole retrain."""
    return {
        item.edit.id: {**shared, "loss": verdict.loss, "taken": verdict.taken}
        for item, verdict in zip(items, verdicts, strict=True)
        if shared["mode"] == "major" or not item.is_consolidated or not verdict.taken
    }
