"""BaFT: learn edits on top of a parent overlay, jointly over the new edits and a replay of the window.

The parent is never changed. All randomness comes from `seed`: the same job gives the same bytes on one kind of machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.editors.answer_margins import answered_mask
from service.editors.baft.dataset import BaftDataset, build_dataset
from service.editors.baft.forward_passes import PassOutput
from service.editors.baft.objective import commit_balance, edit_means
from service.editors.baft.row_runner import RowRunner
from service.editors.baft.settings import BaftSettings
from service.editors.baft.step_outputs import gate_weights
from service.editors.baft.trainable import TrainableAdapter, initial_interventions
from service.editors.baft.training_loop import Attempt, AttemptParameters, AttemptResult, Interventions, find_unanswered
from service.editors.known_names import NO_NAMES, KnownNames
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitFailed, FitItem, FitResult, Hooks
from service.editors.wordings import add_wordings
from service.lm.base import Base
from service.lm.chat import template_tail
from service.lm.intervention import Adapter, Balance, Intervention
from service.lm.last_tokens import LastTokens
from service.lm.overlay import Overlay, View
from service.lm.scoring import greedy_matches, row_losses

_WORDINGS_TOGETHER = 32  # of all new edits of a fit: each one is asked of the model, and learned in every pass


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
    names: KnownNames = NO_NAMES,
    hooks: Hooks | None = None,
    cached: bool = True,
) -> FitResult:
    """Fit `new` on `parent`, and keep the items of `window` answered: the items of the parent's adapter and consolidated items.

    A parent without an adapter, or with an adapter of another shape than `settings` name, gets a new adapter; then the window is
    learned again like new edits. The fit acts everywhere. Its adapter acts in the scope of the items that it carries, for which
    `names` are looked for in prompts without a subject.

    Raises FitFailed on numbers that are not finite, FitCancelled if `hooks` say so, Refused for text that does not fit.
    `cached=False` runs whole sequences in every step: slower, equal to rounding.
    """
    hooks = hooks or Hooks()
    started = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    blocks, last = settings.blocks_of(base.anatomy.family, base.anatomy.depth), settings.last_tokens(template_tail(base))
    adapter = parent.adapter if _has_shape(parent.adapter, base, blocks, last, settings) else None
    if adapter is None:
        adapter = Adapter(initial_interventions(base.anatomy.width, blocks, settings, generator), {}, last).to(base.device)
        new, window = (
            [*new, *(item for item in window if not item.is_consolidated)],
            [item for item in window if item.is_consolidated],
        )
    runner = RowRunner(view_of(Overlay(parent.tensors)), min(blocks), last, cached, hooks)
    wordings = min(settings.wordings, _WORDINGS_TOGETHER // max(len(new), 1))
    new = [add_wordings(runner.view, item, settings.wording_counts(wordings), neutral, names, hooks) for item in new]
    window = [
        item
        if item.is_consolidated
        else add_wordings(runner.view, item, settings.wording_counts(settings.window_wordings), neutral, names, hooks)
        for item in window
    ]
    items = [*new, *window]
    dataset = build_dataset(runner, items, len(new), settings=settings, neutral=neutral, names=names, generator=generator)
    fit = _Fit(runner.view, items, len(new), dataset, adapter, settings, hooks)
    unanswered = fit.find_lost(adapter.interventions, dataset.new_end)
    interventions, attempts, lost = fit.run(generator)
    fitted = Adapter(interventions, fit.balance(interventions), last, dataset.scope)
    lost = fit.confirm_lost(lost, fitted)
    overlay = Overlay(parent.tensors, fitted)
    costs = {"milliseconds": int((time.monotonic() - started) * 1000), "fitted_together": len(new)}
    reports = fit.reports(interventions, attempts, lost, unanswered, costs)
    scores = {"retention": 1.0 - len(lost) / max(len(items), 1)}
    return FitResult(overlay, reports, tuple(items[index].edit.id for index in sorted(lost)), scores)


def _has_shape(adapter: Adapter | None, base: Base, blocks: Sequence[int], last: LastTokens, settings: BaftSettings) -> bool:
    """Whether training can continue from an adapter: it has the blocks, the positions, the rank and the gate of the settings."""
    if adapter is None or set(adapter.interventions) != set(blocks) or adapter.last != last:
        return False
    example = next(iter(initial_interventions(base.anatomy.width, blocks[:1], settings, torch.Generator()).values()))
    shapes = {name: tensor.shape for name, tensor in example.tensors().items()}
    return all(
        {name: tensor.shape for name, tensor in intervention.tensors().items()} == shapes
        for intervention in adapter.interventions.values()
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """One job: `items[:new]` are learned on `start`, the others kept."""

    view: View
    items: Sequence[FitItem]
    new: int
    dataset: BaftDataset
    start: Adapter
    settings: BaftSettings
    hooks: Hooks

    def run(self, generator: torch.Generator) -> tuple[dict[int, Intervention], list[AttemptResult], set[int]]:
        """Attempts until every literal row is answered. Each continues the last one, longer, with the lost rows in every step.

        Returns the interventions, the result of each attempt, and the indexes of the items that are still lost.
        """
        interventions, results, lost = dict(self.start.interventions), list[AttemptResult](), set[int]()
        trainable = TrainableAdapter(self.start.interventions)
        focus: set[int] = set()
        for number in range(self.settings.attempts):
            attempt = Attempt(self.dataset, self.start.balance, self.settings, self._parameters(number), generator, focus)
            results.append(attempt.run(trainable, self.hooks))
            interventions = trainable.without_gradients() if sum(result.steps for result in results) else interventions
            if not _are_finite(interventions):
                raise FitFailed("the fit met numbers that are not finite, and nothing of it was kept")
            lost = self.find_lost(interventions)
            if not lost:
                break
            kept = range(self.dataset.new_end, len(self.dataset.rows))
            focus |= {index for index in kept if self.dataset.rows[index].item in lost}
        return interventions, results, lost

    def _parameters(self, attempt: int) -> AttemptParameters:
        base = self.view.base
        model: Any = base.model
        beta, gamma = self.settings.margins_of(base.anatomy.family, model.get_input_embeddings().weight.shape[0])
        rate, steps = self.settings.rate_of(base.anatomy.width, self.new), self.settings.steps_of(self.new, attempt)
        return AttemptParameters(rate, steps, beta, gamma, self.settings.margin_of(self.new))

    def find_lost(self, interventions: Interventions, rows: int | None = None) -> set[int]:
        """Indexes of items with a literal row, on any surface, without a greedy answer; of the first `rows` rows, or of all."""
        literal = [index for index, row in enumerate(self.dataset.rows[:rows]) if row.is_literal]
        missing = find_unanswered(self.dataset, literal, interventions, _is_answered, self.settings.rows, self.hooks)
        return {self.dataset.rows[index].item for index in missing}

    def balance(self, interventions: Interventions) -> dict[int, Balance]:
        """The state of load balancing after the new edits, each counted once. Replayed rows were counted before."""
        past = self.start.balance
        if self.settings.gate == "none" or not self.dataset.new_end:
            return dict(past)
        gates = gate_weights(self.dataset, range(self.dataset.new_end), interventions)
        edits = torch.tensor([row.item for row in self.dataset.rows[: self.dataset.new_end]], device=self.view.base.device)
        current = {block: edit_means(weights, edits) for block, weights in gates.items()}
        horizon = self.settings.balance_horizon
        return {block: commit_balance(past.get(block), means, horizon=horizon) for block, means in current.items()}

    def confirm_lost(self, lost: set[int], adapter: Adapter) -> set[int]:
        """The lost items without consolidated ones that the version answers, since the adapter does not act on their prompts. The
        fit itself acts everywhere.
        """
        doubtful = {index for index in lost if self.items[index].is_consolidated and adapter.scope is not None}
        asked = [row for row in self.dataset.rows if row.item in doubtful]
        matches = greedy_matches(self.view, [row.row for row in asked], adapter) if asked else []
        unanswered = {row.item for row, is_match in zip(asked, matches, strict=True) if not is_match}
        return (lost - doubtful) | unanswered

    def reports(
        self,
        interventions: Interventions,
        attempts: Sequence[AttemptResult],
        lost: set[int],
        unanswered: set[int],
        costs: Mapping[str, int],
    ) -> dict[str, Mapping[str, Any]]:
        """One report per new item. Steps and time are those of the whole fit; `already`: the parent answered the item."""
        literal = [row for row in self.dataset.rows[: self.dataset.new_end] if row.is_literal]
        adapter = Adapter(interventions, {}, self.start.last)
        losses = row_losses(self.view, [row.row for row in literal], adapter).tolist() if literal else []
        return {
            item.edit.id: {
                "method": "baft",
                "steps": sum(attempt.steps for attempt in attempts),
                "attempts": len(attempts),
                "loss": max(loss for row, loss in zip(literal, losses, strict=True) if row.item == index),
                "taken": index not in lost,
                "already": index not in unanswered,
                **costs,
            }
            for index, item in enumerate(self.items[: self.new])
        }


def _is_answered(output: PassOutput, chosen: Sequence[int]) -> Tensor:
    return answered_mask(output.logits, output.labels, output.row_of, len(chosen), 0.0)


def _are_finite(interventions: Interventions) -> bool:
    tensors = (tensor for intervention in interventions.values() for tensor in intervention.tensors().values())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
