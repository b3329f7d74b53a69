"""The loop of one attempt: steps of AdamW on Eq. 4 until the answers are right. Knows no items and no overlay."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.editors.answer_margins import row_margins
from service.editors.baft.dataset import BaftDataset, sample
from service.editors.baft.forward_passes import PassOutput
from service.editors.baft.objective import balance_term, edit_means, layer_mean, margin_term, rescale
from service.editors.baft.settings import BaftSettings
from service.editors.baft.step_outputs import StepOutput, run_rows
from service.editors.baft.trainable import TrainableAdapter
from service.editors.losses import edit_loss, require_finite
from service.editors.protocol import Hooks
from service.lm.intervention import Balance, Intervention
from service.lm.row_groups import split_in_order

Interventions = Mapping[int, Intervention]


@dataclass(frozen=True)
class AttemptParameters:
    """The numbers of one attempt that depend on the model and on the number of edits."""

    learning_rate: float
    steps: int
    beta: float
    gamma: float
    margin: float


@dataclass(frozen=True)
class AttemptResult:
    """The steps of an attempt, its last edit loss, and whether it ended because the fit was done."""

    steps: int
    loss: float
    is_done: bool


@dataclass(frozen=True, eq=False)
class Attempt:
    """One attempt. `balance` is the state before it. `focus` collects lost kept rows, which then are in every step."""

    dataset: BaftDataset
    balance: Mapping[int, Balance]
    settings: BaftSettings
    parameters: AttemptParameters
    generator: torch.Generator
    focus: set[int]

    def run(self, trainable: TrainableAdapter, hooks: Hooks) -> AttemptResult:
        """Train until done or out of steps, with a new optimizer. Raises FitFailed on numbers that are not finite."""
        optimizer = torch.optim.AdamW(trainable.parameters(), lr=self.parameters.learning_rate, weight_decay=0.0)
        batches = self._batches()
        loss = math.inf
        for step in range(self.parameters.steps):
            hooks.begin_step()
            new, replayed = next(batches)
            interventions = trainable.with_gradients()
            record = self.settings.balance != "none" or self.dataset.unrelated is not None
            output = run_rows(self.dataset, [*new, *replayed], interventions, record=record)
            edit = self._edit_loss(output, len(new), len(replayed))
            loss = require_finite(edit)
            if self._is_done(output, loss, [*new, *replayed], interventions, hooks):
                return AttemptResult(step, loss, True)
            total = edit + self._regularisers(output, edit, new, interventions) + self._preserve(interventions)
            require_finite(total)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            hooks.progress((step + 1) / self.parameters.steps, "fit")
        return AttemptResult(self.parameters.steps, loss, False)

    def _batches(self) -> Iterator[tuple[list[int], list[int]]]:
        """The rows of every step: new rows breadth-first, and a sample of the kept rows."""
        count = self.dataset.new_end
        while True:
            order = torch.randperm(count, generator=self.generator).tolist()
            for start in range(0, max(count, 1), self.settings.rows):
                yield sorted(order[start : start + self.settings.rows]), self._sample_kept()

    def _sample_kept(self) -> list[int]:
        """Indexes of kept rows for one step: lost rows, consolidated rows (half of them near new ones), and window rows."""
        if not self.settings.replay:
            return []
        window = range(self.dataset.new_end, self.dataset.window_end)
        consolidated = range(self.dataset.window_end, len(self.dataset.rows))
        focus = sorted(self.focus)[: self.settings.replay]
        near = sample(self.dataset.near_consolidated, self.settings.consolidated // 2, self.generator)
        chosen = {*focus, *near, *sample(consolidated, self.settings.consolidated - len(near), self.generator)}
        return sorted(chosen | set(sample(window, self.settings.replay - len(focus), self.generator)))

    def _edit_loss(self, output: StepOutput, new: int, replayed: int) -> Tensor:
        """L1 of the new rows plus L1 of the replayed rows. Each is a mean, so that a long window does not drown a new edit."""
        losses, row_of, is_new = output.losses, output.row_of, output.row_of < new
        terms = [losses.new_zeros(())]
        if new:
            terms.append(edit_loss(losses[is_new], row_of[is_new], new, self.settings.reduction))
        if replayed:
            terms.append(edit_loss(losses[~is_new], row_of[~is_new] - new, replayed, self.settings.reduction))
        return torch.stack(terms).sum()

    def _is_done(
        self, output: StepOutput, loss: float, chosen: Sequence[int], interventions: Interventions, hooks: Hooks
    ) -> bool:
        """Whether the fit is done, judged on every row and not on this step's rows alone."""
        if self.settings.stop == "loss":
            return loss < self.settings.stop_loss
        if not bool(self._has_margin(output.margins, chosen).all()):
            return False
        judged = len(self.dataset.rows) if self.settings.replay else self.dataset.new_end
        rest = sorted(set(range(judged)) - set(chosen))
        lost = find_unanswered(self.dataset, rest, interventions, self._is_answered, self.settings.rows, hooks)
        self.focus.update(index for index in lost if index >= self.dataset.new_end)
        return not lost

    def _is_answered(self, output: PassOutput, chosen: Sequence[int]) -> Tensor:
        return self._has_margin(row_margins(output.logits, output.labels, output.row_of, len(chosen)), chosen)

    def _has_margin(self, margins: Tensor, chosen: Sequence[int]) -> Tensor:
        """(rows,) bool: new rows need a larger margin than kept rows."""
        required = [self.parameters.margin if index < self.dataset.new_end else self.settings.keep_margin for index in chosen]
        return margins > torch.tensor(required, device=margins.device)

    def _regularisers(self, output: StepOutput, edit: Tensor, new: Sequence[int], interventions: Interventions) -> Tensor:
        """R_bal over the new edits of this step and all past edits, and R_loc, each scaled to the size of the edit loss."""
        total, limit = edit.new_zeros(()), self.settings.rescale_limit
        balance_limit = limit if self.settings.balance_limited else None
        if not output.weights or not new:
            return total
        items = torch.tensor([self.dataset.rows[index].item for index in new], device=edit.device)
        current = {block: edit_means(weights[: len(new)], items) for block, weights in output.weights.items()}  # block: (E, R)
        if self.settings.balance != "none":
            terms = [balance_term(weights, self.balance.get(block), self.settings.balance) for block, weights in current.items()]
            total = total + rescale(layer_mean(terms), edit, balance_limit)
        if self.dataset.unrelated is not None:
            other = self.dataset.unrelated(range(self.dataset.unrelated_count), interventions, record=True).weights
            total = total + rescale(layer_mean([self._margin(current[block], other[block]) for block in current]), edit, limit)
        return total

    def _margin(self, edit: Tensor, unrelated: Tensor) -> Tensor:
        return margin_term(
            edit, unrelated, alpha=self.settings.margin_alpha, beta=self.parameters.beta, gamma=self.parameters.gamma
        )

    def _preserve(self, interventions: Interventions) -> Tensor | float:
        """Divergence from the unedited model on some neutral rows, trained locality probes and contrast rows."""
        total: Tensor | float = 0.0
        weight, rows = self.settings.preserve_weight, self.settings.preserve_rows
        if self.dataset.pool is not None and self.dataset.pool_candidates:
            half = rows // 2 if self.dataset.pool_near else 0
            chosen = sample(self.dataset.pool_near, half, self.generator)
            chosen += sample(self.dataset.pool_candidates, rows - half, self.generator)
            total = total + weight * self.dataset.pool.preserved.divergence(chosen, interventions)
        if self.dataset.locality is not None:
            chosen = sample(range(self.dataset.locality_count), rows, self.generator)
            total = total + weight * self.dataset.locality.divergence(chosen, interventions)
        if self.dataset.contrast is not None:
            chosen = self._sample_contrast()
            total = total + self.settings.contrast_weight * self.dataset.contrast.divergence(chosen, interventions)
        return total

    def _sample_contrast(self) -> list[int]:
        """Contrast rows of one step: of the new edits and, as a third, of the window."""
        new, rows = range(self.dataset.contrast_new), self.settings.contrast_rows
        window = sample(range(self.dataset.contrast_new, self.dataset.contrast_count), rows // 3, self.generator)
        return [*sample(new, rows - len(window), self.generator), *window]


def find_unanswered(
    dataset: BaftDataset,
    chosen: Sequence[int],
    interventions: Interventions,
    judge: Callable[[PassOutput, Sequence[int]], Tensor],
    max_rows: int,
    hooks: Hooks,
) -> list[int]:
    """The chosen rows for which `judge` gives false. Raises FitCancelled if `hooks` say so."""
    lost: list[int] = []
    for span in split_in_order([len(dataset.rows[index].row) for index in chosen], rows=max_rows):
        hooks.begin_step()
        part = chosen[span.start : span.stop]
        with torch.no_grad():
            output = dataset.passes(part, interventions)
        lost += [index for index, is_right in zip(part, judge(output, part).tolist(), strict=True) if not is_right]
    return lost
