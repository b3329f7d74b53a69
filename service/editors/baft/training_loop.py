"""The loop of one attempt: steps of AdamW on Eq. 4 until the answers are right. Knows no items and no overlay."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.editors.baft.dataset import BaftDataset
from service.editors.baft.forward_passes import Pass
from service.editors.baft.objective import balance_term, by_edit, layer_mean, margin_term, rescaled
from service.editors.baft.settings import BaftSettings
from service.editors.baft.step_outputs import Seen, look
from service.editors.baft.trainable import TrainableAdapter
from service.editors.correctness import row_margins
from service.editors.losses import edit_loss, finite
from service.editors.protocol import Hooks
from service.lm.intervention import Balance, Intervention
from service.lm.row_groups import split_in_order

Interventions = Mapping[int, Intervention]


@dataclass(frozen=True)
class Rates:
    """What depends on the model and on how many edits are fitted."""

    learning_rate: float
    steps: int
    beta: float
    gamma: float
    margin: float


@dataclass(frozen=True)
class Trace:
    """How an attempt went: steps made, the last edit loss, and whether it ended because the fit was done."""

    steps: int
    loss: float
    done: bool


@dataclass(frozen=True, eq=False)
class Attempt:
    """One attempt. `balance` is the state before it; `focus` collects kept rows found lost, which then join every step."""

    material: BaftDataset
    balance: Mapping[int, Balance]
    settings: BaftSettings
    rates: Rates
    generator: torch.Generator
    focus: set[int]

    def run(self, trained: TrainableAdapter, hooks: Hooks) -> Trace:
        """Train until done or out of steps, with a fresh optimizer. Raises FitFailed on numbers that are not finite."""
        optimizer = torch.optim.AdamW(trained.parameters(), lr=self.rates.learning_rate, weight_decay=0.0)
        batches = self._batches()
        loss = math.inf
        for step in range(self.rates.steps):
            hooks.begin_step()
            fresh, replayed = next(batches)
            interventions = trained.now()
            record = self.settings.balance != "none" or self.material.unrelated is not None
            seen = look(self.material, [*fresh, *replayed], interventions, record=record)
            edit = self._edit_loss(seen, len(fresh), len(replayed))
            loss = finite(edit)
            if self._is_done(seen, loss, [*fresh, *replayed], interventions, hooks):
                return Trace(step, loss, True)
            total = edit + self._regularisers(seen, edit, fresh, interventions) + self._preserve(interventions)
            finite(total)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            hooks.progress((step + 1) / self.rates.steps, "fit")
        return Trace(self.rates.steps, loss, False)

    def _batches(self) -> Iterator[tuple[list[int], list[int]]]:
        """Rows of every step: new edits breadth-first, and of those to keep as many as are replayed at once."""
        fresh = self.material.fresh
        while True:
            order = torch.randperm(fresh, generator=self.generator).tolist()
            for start in range(0, max(fresh, 1), self.settings.rows):
                yield sorted(order[start : start + self.settings.rows]), self._replayed()

    def _replayed(self) -> list[int]:
        if not self.settings.replay:
            return []
        window = range(self.material.fresh, self.material.replayed)
        consolidated = range(self.material.replayed, len(self.material.asked))
        focus = sorted(self.focus)[: self.settings.replay]
        near = _sample(self.material.near_consolidated, self.settings.consolidated // 2, self.generator)
        chosen = {*focus, *near, *_sample(consolidated, self.settings.consolidated - len(near), self.generator)}
        return sorted(chosen | set(_sample(window, self.settings.replay - len(focus), self.generator)))

    def _edit_loss(self, seen: Seen, fresh: int, replayed: int) -> Tensor:
        """L1 of the new rows plus L1 of the replayed ones: each a mean, so that a long window does not drown a new edit."""
        losses, new = seen.losses, seen.row_of < fresh
        terms = [losses.new_zeros(())]
        if fresh:
            terms.append(edit_loss(losses[new], seen.row_of[new], fresh, self.settings.reduction))
        if replayed:
            terms.append(edit_loss(losses[~new], seen.row_of[~new] - fresh, replayed, self.settings.reduction))
        return torch.stack(terms).sum()

    def _is_done(self, seen: Seen, loss: float, chosen: Sequence[int], interventions: Interventions, hooks: Hooks) -> bool:
        """Whether this state needs no further step; judged on every row, not on this step's alone."""
        if self.settings.stop == "loss":
            return loss < self.settings.stop_loss
        if not bool(self._lead_enough(seen.leads, chosen).all()):
            return False
        judged = len(self.material.asked) if self.settings.replay else self.material.fresh
        rest = sorted(set(range(judged)) - set(chosen))
        lost = unanswered(self.material, rest, interventions, self._answered, self.settings.rows, hooks)
        self.focus.update(index for index in lost if index >= self.material.fresh)
        return not lost

    def _answered(self, seen: Pass, chosen: Sequence[int]) -> Tensor:
        return self._lead_enough(row_margins(seen.logits, seen.labels, seen.row_of, len(chosen)), chosen)

    def _lead_enough(self, least: Tensor, chosen: Sequence[int]) -> Tensor:
        """(rows,) bool: new rows must lead by more than rows that are kept."""
        margins = [self.rates.margin if index < self.material.fresh else self.settings.keep_margin for index in chosen]
        return least > torch.tensor(margins, device=least.device)

    def _regularisers(self, seen: Seen, edit: Tensor, fresh: Sequence[int], interventions: Interventions) -> Tensor:
        """R_bal over the new edits of this step and all past ones, and R_loc, each brought to the size of the edit loss."""
        total, limit = edit.new_zeros(()), self.settings.rescale_limit
        if not seen.weights or not fresh:
            return total
        items = torch.tensor([self.material.asked[index].item for index in fresh], device=edit.device)
        current = {block: by_edit(weights[: len(fresh)], items) for block, weights in seen.weights.items()}  # block: (E, R)
        if self.settings.balance != "none":
            terms = [balance_term(weights, self.balance.get(block), self.settings.balance) for block, weights in current.items()]
            total = total + rescaled(layer_mean(terms), edit, limit)
        if self.material.unrelated is not None:
            other = self.material.unrelated(range(self.material.unrelated_count), interventions, record=True).weights
            total = total + rescaled(layer_mean([self._margin(current[block], other[block]) for block in current]), edit, limit)
        return total

    def _margin(self, edit: Tensor, unrelated: Tensor) -> Tensor:
        return margin_term(edit, unrelated, alpha=self.settings.margin_alpha, beta=self.rates.beta, gamma=self.rates.gamma)

    def _preserve(self, interventions: Interventions) -> Tensor | float:
        """Divergence from the unedited model on some neutral rows and on some trained locality probes."""
        total: Tensor | float = 0.0
        weight, rows = self.settings.preserve_weight, self.settings.preserve_rows
        if self.material.pool is not None and self.material.allowed:
            half = rows // 2 if self.material.near else 0
            chosen = _sample(self.material.near, half, self.generator)
            chosen += _sample(self.material.allowed, rows - half, self.generator)
            total = total + weight * self.material.pool.preserved.divergence(chosen, interventions)
        if self.material.kept is not None:
            chosen = _sample(range(self.material.kept_count), rows, self.generator)
            total = total + weight * self.material.kept.divergence(chosen, interventions)
        return total


def unanswered(
    material: BaftDataset,
    chosen: Sequence[int],
    interventions: Interventions,
    judge: Callable[[Pass, Sequence[int]], Tensor],
    at_once: int,
    hooks: Hooks,
) -> list[int]:
    """The chosen rows that are not answered, by the judge's word. Raises FitCancelled if `hooks` say so."""
    lost: list[int] = []
    for piece in split_in_order([len(material.asked[index].row) for index in chosen], rows=at_once):
        hooks.begin_step()
        part = chosen[piece.start : piece.stop]
        with torch.no_grad():
            seen = material.asked_passes(part, interventions)
        lost += [index for index, right in zip(part, judge(seen, part).tolist(), strict=True) if not right]
    return lost


def _sample(indexes: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    order = torch.randperm(len(indexes), generator=generator)[:count].tolist()
    return [indexes[place] for place in order]
