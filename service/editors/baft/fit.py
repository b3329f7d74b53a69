"""BaFT: learn some edits on top of a parent overlay, joint over the new edits and a replay of the window.

The parent is never changed. Everything random comes from `seed`: the same job gives the same bytes on one kind of machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.editors.baft.dataset import BaftDataset, Runs, gather
from service.editors.baft.forward_passes import Pass
from service.editors.baft.objective import by_edit, commit_balance
from service.editors.baft.settings import BaftSettings
from service.editors.baft.step_outputs import gates
from service.editors.baft.trainable import TrainableAdapter, initial_interventions
from service.editors.baft.training_loop import Attempt, Interventions, Rates, Trace, unanswered
from service.editors.canary import canary_share
from service.editors.correctness import answered_mask
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitFailed, FitItem, FitResult, Hooks
from service.lm.base import Base
from service.lm.intervention import Adapter, Balance, Intervention
from service.lm.overlay import Overlay, View
from service.lm.scoring import row_losses


def fit_baft(
    base: Base,
    view_of: Callable[[Overlay], View],
    parent: Overlay,
    new: Sequence[FitItem],
    window: Sequence[FitItem],
    *,
    settings: BaftSettings,
    neutral: NeutralSentences,
    seed: int,
    hooks: Hooks | None = None,
    cached: bool = True,
) -> FitResult:
    """Fit `new` on `parent`, keeping the items of `window` answered: those that its adapter carries, and consolidated ones.

    A parent without an adapter, or with one of another shape than `settings` asks for, starts afresh; then the window is learned
    again like new edits. Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Refused for text that
    does not fit. `cached=False` runs whole sequences in every step: slower, equal to rounding.
    """
    hooks = hooks or Hooks()
    started = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    blocks = settings.blocks_of(base.anatomy.family, base.anatomy.depth)
    adapter = parent.adapter if _fits(parent.adapter, base, blocks, settings) else None
    if adapter is None:
        adapter = Adapter(initial_interventions(base.anatomy.width, blocks, settings, generator), {}, settings.last).to(
            base.device
        )
        new, window = (
            [*new, *(item for item in window if not item.is_consolidated)],
            [item for item in window if item.is_consolidated],
        )
    items = [*new, *window]
    runs = Runs(view_of(Overlay(parent.tensors)), min(blocks), settings.last, cached, hooks)
    material = gather(runs, items, len(new), settings=settings, neutral=neutral, generator=generator)
    fit = _Fit(runs.view, items, len(new), material, adapter, settings, hooks)
    missed = fit.lost(adapter.interventions, material.fresh)
    after, traces, lost = fit.run(generator)
    overlay = Overlay(parent.tensors, Adapter(after, fit.balance(after), settings.last))
    spent = {"milliseconds": int((time.monotonic() - started) * 1000), "fitted_together": len(new)}
    reports = fit.reports(after, traces, lost, missed, spent)
    scores = {"retention": 1.0 - len(lost) / max(len(items), 1), "canary": canary_share(neutral, runs.view, overlay, hooks)}
    return FitResult(overlay, reports, tuple(items[index].edit.id for index in sorted(lost)), scores)


def _fits(adapter: Adapter | None, base: Base, blocks: Sequence[int], settings: BaftSettings) -> bool:
    """Whether an adapter can be trained on: the blocks, the rank and the kind of gate that the settings ask for."""
    if adapter is None or set(adapter.interventions) != set(blocks) or adapter.last != settings.last:
        return False
    plain = next(iter(initial_interventions(base.anatomy.width, blocks[:1], settings, torch.Generator()).values()))
    wanted = {name: tensor.shape for name, tensor in plain.tensors().items()}
    return all(
        {name: tensor.shape for name, tensor in intervention.tensors().items()} == wanted
        for intervention in adapter.interventions.values()
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """One job: `items[:new]` are learned on `start`, the others kept."""

    view: View
    items: Sequence[FitItem]
    new: int
    material: BaftDataset
    start: Adapter
    settings: BaftSettings
    hooks: Hooks

    def run(self, generator: torch.Generator) -> tuple[dict[int, Intervention], list[Trace], set[int]]:
        """Attempts until every literal row is answered: each goes on from the last, longer, with the lost rows in every step.

        Gives the interventions, how each attempt went, and the items that are lost even then.
        """
        after, traces, lost = dict(self.start.interventions), list[Trace](), set[int]()
        trained = TrainableAdapter(self.start.interventions)
        focus: set[int] = set()
        for number in range(self.settings.attempts):
            attempt = Attempt(self.material, self.start.balance, self.settings, self._rates(number), generator, focus)
            traces.append(attempt.run(trained, self.hooks))
            after = trained.frozen() if sum(trace.steps for trace in traces) else after
            if not _are_finite(after):
                raise FitFailed("the fit met numbers that are not finite, and nothing of it was kept")
            lost = self.lost(after)
            if not lost:
                break
            kept = range(self.material.fresh, len(self.material.asked))
            focus |= {index for index in kept if self.material.asked[index].item in lost}
        return after, traces, lost

    def _rates(self, attempt: int) -> Rates:
        base = self.view.base
        model: Any = base.model
        beta, gamma = self.settings.margins_of(base.anatomy.family, model.get_input_embeddings().weight.shape[0])
        chosen = self.settings
        rate, steps = chosen.rate_of(base.anatomy.width, self.new), chosen.steps_of(self.new, attempt)
        return Rates(rate, steps, beta, gamma, chosen.margin_of(self.new))

    def lost(self, interventions: Interventions, rows: int | None = None) -> set[int]:
        """Items with a literal row, on whatever surface, that is not answered greedily; of all, or of the first so many rows."""
        literal = [index for index, row in enumerate(self.material.asked[:rows]) if row.literal]
        missing = unanswered(self.material, literal, interventions, _is_answered, self.settings.rows, self.hooks)
        return {self.material.asked[index].item for index in missing}

    def balance(self, interventions: Interventions) -> dict[int, Balance]:
        """The running state with the new edits in it, once each; replayed rows are in it already."""
        past = self.start.balance
        if self.settings.gate == "none" or not self.material.fresh:
            return dict(past)
        seen = gates(self.material, range(self.material.fresh), interventions)
        edits = torch.tensor([row.item for row in self.material.asked[: self.material.fresh]], device=self.view.base.device)
        return {block: commit_balance(past.get(block), by_edit(weights, edits)) for block, weights in seen.items()}

    def reports(
        self,
        interventions: Interventions,
        traces: Sequence[Trace],
        lost: set[int],
        missed: set[int],
        spent: Mapping[str, int],
    ) -> dict[str, Mapping[str, Any]]:
        """One report a new item. Steps and time are those of the fit it was part of; `already`: its parent said it before."""
        own = [row for row in self.material.asked[: self.material.fresh] if row.literal]
        adapter = Adapter(interventions, {}, self.settings.last)
        losses = row_losses(self.view, [row.row for row in own], adapter).tolist() if own else []
        return {
            item.edit.id: {
                "method": "baft",
                "steps": sum(trace.steps for trace in traces),
                "attempts": len(traces),
                "loss": max(loss for row, loss in zip(own, losses, strict=True) if row.item == index),
                "taken": index not in lost,
                "already": index not in missed,
                **spent,
            }
            for index, item in enumerate(self.items[: self.new])
        }


def _is_answered(seen: Pass, chosen: Sequence[int]) -> Tensor:
    return answered_mask(seen.logits, seen.labels, seen.row_of, len(chosen), 0.0)


def _are_finite(interventions: Interventions) -> bool:
    return all(bool(tensor.isfinite().all()) for each in interventions.values() for tensor in each.tensors().values())
