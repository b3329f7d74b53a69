"""LocFT-BF: train one module's weights over all live edits, breadth-first: *major* from the base, *minor* from a version.

A major retrain is a function of (base, items, settings, neutral sentences, prompts, seed), bit for bit on one machine: an edit
that is no longer among the items leaves no trace. A minor retrain also depends on the tensors that it starts from.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from service.editors.known_names import NO_NAMES, KnownNames
from service.editors.locft.activation_cache import ActivationCache
from service.editors.locft.breadth_first import train_breadth_first
from service.editors.locft.dataset import build_dataset
from service.editors.locft.depth_first import train_depth_first
from service.editors.locft.location import TunedLocation, find_tuned_location
from service.editors.locft.packed_rows import PackedRows
from service.editors.locft.preconditioning import PreconditionedWeights, make_preconditioners
from service.editors.locft.settings import LocftSettings
from service.editors.locft.training_step import MasterWeights, Trainer
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lm.base import Base
from service.lm.components import Weight
from service.lm.overlay import EMPTY, Overlay, View, make_view

# View, names, rate, start, generator → the weights that are trained.
MakeWeights = Callable[[View, Sequence[str], float, Mapping[str, Weight], torch.Generator | None], MasterWeights]
_MEGABYTE = 1_000_000
_READ, _TRAINED = 0.05, 0.95  # the shares of progress when all rows are read and when training ends


@dataclass
class ItemOutcome:
    """Whether an item's own prompts are answered on every surface, and the largest loss among them."""

    is_answered: bool = True
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
    names: KnownNames = NO_NAMES,
    make_weights: MakeWeights | None = None,
) -> FitResult:
    """Train all `items` into one location. The overlay has no adapter, so its window is empty.

    Without `start` this is a major retrain, from the base. With `start` it is a minor retrain, from its tensors: these already
    answer consolidated items, so each epoch has only a sample of them; all items are verified in the end, and lost items are
    trained again. In both cases the *base's* answers are kept: to neutral sentences, trained locality probes and `prompts`.

    `make_weights` gives the form of the trained weights; other methods are trained by the same loop. Without it each weight is
    trained whole, with preconditioned steps if the settings have `precondition`.

    The scores also hold `neutral_rows`, the number of neutral sentences kept, and, if it is not zero, `rephrases_left_out`, the
    number of trained rephrases that do not fit the model or are contradicted.

    Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Unavailable if the disk has no room for the
    activation cache, Refused for text that does not fit or a location that the model lacks, StartElsewhere for another start.
    """
    hooks = hooks or Hooks()
    started = time.monotonic()
    location = find_tuned_location(base.anatomy, settings)
    private, generator = make_view(base), torch.Generator().manual_seed(seed)
    rate = _rate(settings, base, minor=bool(start.tensors))
    if make_weights is None:
        make_weights = _preconditioned_weights(private, location, items, settings, neutral, start, generator, hooks)
    master = make_weights(private, location.names, rate, start.tensors, generator)
    hooks.progress(0.0, "reading")
    dataset = build_dataset(
        private,
        items,
        prompts,
        settings=settings,
        neutral=neutral,
        names=names,
        generator=generator,
        hooks=hooks.scale_progress(0.0, _READ),
    )
    rows = dataset.rows
    with ActivationCache(
        private,
        rows,
        block=location.lowest,
        memory_bytes=settings.cache_mb * _MEGABYTE,
        disk_bytes=settings.cache_disk_mb * _MEGABYTE,
    ) as states:
        trainer = Trainer(private, rows, states, settings, generator)
        train = train_depth_first if settings.order == "depth" else train_breadth_first
        epochs = train(
            trainer, master, _consolidated_mask(rows, items, minor=bool(start.tensors)), hooks.scale_progress(_READ, _TRAINED)
        )
        overlay = Overlay(master.copy_weights())
        hooks.progress(_TRAINED, "asking every edit once more")
        outcomes = _find_outcomes(trainer, overlay, len(items), hooks)
    lost = [item.edit.id for item, outcome in zip(items, outcomes, strict=True) if not outcome.is_answered]
    report = {
        "method": settings.group,
        "mode": "minor" if start.tensors else "major",
        "location": location.label,
        "position": location.rule,
        "epochs": epochs,
        "fitted_together": len(items),
        "milliseconds": int((time.monotonic() - started) * 1000),
        "already": False,
    }
    scores = {
        "retention": 1.0 - len(lost) / max(len(items), 1),
        "neutral_rows": dataset.neutral_count,
        **({"rephrases_left_out": dataset.omitted_rephrases} if dataset.omitted_rephrases else {}),
    }
    hooks.progress(1.0, "asking every edit once more")
    return FitResult(overlay, _reports(items, outcomes, report), tuple(lost), scores)


def _rate(settings: LocftSettings, base: Base, *, minor: bool) -> float:
    """The rate of Adam; smaller for a minor retrain, which has few steps to undo the needless changes of Adam's first steps."""
    rate = settings.rate_of(base.anatomy.family, base.anatomy.depth, base.anatomy.width)
    return rate * settings.minor_rate if minor else rate


def _preconditioned_weights(
    view: View,
    location: TunedLocation,
    items: Sequence[FitItem],
    settings: LocftSettings,
    neutral: NeutralSentences,
    start: Overlay,
    generator: torch.Generator,
    hooks: Hooks,
) -> MakeWeights:
    """Weights that are trained whole, with preconditioned steps if the settings say so."""
    if not settings.precondition:
        return MasterWeights
    hooks.progress(0.0, "measuring what enters the tuned weights")
    preconditioners = make_preconditioners(
        view, location, items, settings=settings, neutral=neutral, start=start, generator=generator, hooks=hooks
    )
    return partial(PreconditionedWeights, preconditioners=preconditioners)


def _consolidated_mask(rows: PackedRows, items: Sequence[FitItem], *, minor: bool) -> Tensor:
    """(rows to learn,) bool: rows that the tensors at the start already answer. From the base there are none."""
    return torch.tensor([minor and items[index].is_consolidated for index in rows.item], dtype=torch.bool)


@torch.no_grad()
def _find_outcomes(trainer: Trainer, overlay: Overlay, count: int, hooks: Hooks) -> list[ItemOutcome]:
    """The outcome of every item's own prompts under the tensors as served, without any margin."""
    outcomes = [ItemOutcome() for _ in range(count)]
    for chosen, losses, is_right in trainer.score_literal_rows(overlay, hooks):
        for row, loss, is_row_right in zip(chosen, losses, is_right, strict=True):
            outcome = outcomes[trainer.rows.item[row]]
            outcome.is_answered &= is_row_right
            outcome.loss = max(outcome.loss, loss)
    return outcomes


def _reports(
    items: Sequence[FitItem], outcomes: Sequence[ItemOutcome], shared: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """One report per item that is new or lost. Epochs and time are those of the whole retrain."""
    return {
        item.edit.id: {**shared, "loss": outcome.loss, "taken": outcome.is_answered}
        for item, outcome in zip(items, outcomes, strict=True)
        if shared["mode"] == "major" or not item.is_consolidated or not outcome.is_answered
    }
