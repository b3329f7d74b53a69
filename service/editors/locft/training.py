"""The breadth-first loop of LocFT-BF: epochs over all rows, mini-batches, masked cross-entropy, Adam. Knows no items."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.editors.answers import answered
from service.editors.locft.settings import LocftSettings
from service.editors.protocol import Hooks
from service.editors.terms import divergence, edit_loss, finite
from service.lm.overlay import View
from service.lm.prompts import Row
from service.lm.resume import Inputs, prefill_inputs, run_from

_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Tuning:
    """What is tuned (`names`, all in `block` of a view nobody else uses), on which rows, and which rows stay as they are."""

    view: View
    names: Sequence[str]
    block: int
    rate: float
    asked: Sequence[Row]
    kept: Sequence[Row]
    settings: LocftSettings
    generator: torch.Generator

    @cached_property
    def inputs(self) -> Inputs:
        """Of the rows that must be answered, up to the tuned block: nothing below it ever changes."""
        return prefill_inputs(self.view, self.asked, block=self.block)

    @cached_property
    def kept_inputs(self) -> Inputs:
        """Of the rows that must stay."""
        return prefill_inputs(self.view, self.kept, block=self.block)

    def run(self, hooks: Hooks) -> tuple[dict[str, Tensor], int]:
        """Train until everything is answered or out of epochs. Gives the tuned tensors in fp32 and the epochs begun.

        The master copy is fp32 whatever the model's dtype: steps of Adam vanish in the rounding of 16-bit weights.
        """
        named = dict(self.view.model.named_parameters())
        master = {name: named[name].detach().float().clone().requires_grad_() for name in self.names}
        optimizer = torch.optim.Adam(master.values(), lr=self.rate, weight_decay=0.0)
        for epoch in range(self.settings.epochs):
            hooks.progress(epoch / self.settings.epochs, "epochs")
            if self._epoch(master, optimizer, hooks):
                return self._detached(master), epoch + 1
        return self._detached(master), self.settings.epochs

    def _epoch(self, master: dict[str, Tensor], optimizer: torch.optim.Optimizer, hooks: Hooks) -> bool:
        """One pass over all rows; true if nothing is left to learn."""
        order = torch.randperm(len(self.asked), generator=self.generator).tolist()
        meter, calm = 0.0, True
        for start in range(0, len(order), self.settings.batch):
            hooks.between_steps()
            chosen = order[start : start + self.settings.batch]
            loss, right = self._edits(chosen, master)
            value = finite(loss)
            meter += value * len(chosen) / len(order)
            if self._skips(value, right):
                continue
            calm = False
            total = loss + self._preserve(master)
            finite(total)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        if self.settings.judge == "loss":
            return meter < self.settings.stop_loss
        return calm or self._all_answered(master)

    def _skips(self, loss: float, right: Tensor) -> bool:
        """Whether a batch has nothing to teach. A mean would hide one bad edit among ninety-nine good ones."""
        return loss < self.settings.stop_loss if self.settings.judge == "loss" else bool(right.all())

    def _edits(self, chosen: Sequence[int], master: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of the chosen rows, and which of them are answered."""
        inputs = self.inputs.select(chosen)
        labels, row_of = inputs.batch.labels, inputs.batch.row_of
        logits = run_from(self.view, inputs, parameters=self._served(master))
        losses = cross_entropy(logits.float(), labels, reduction="none")
        right = answered(logits, labels, row_of, len(chosen), self.settings.stop_margin)
        return edit_loss(losses, row_of, len(chosen), self.settings.reduction), right

    def _all_answered(self, master: dict[str, Tensor]) -> bool:
        for start in range(0, len(self.asked), _CHUNK):
            with torch.no_grad():
                _, right = self._edits(range(start, min(start + _CHUNK, len(self.asked))), master)
            if not bool(right.all()):
                return False
        return True

    def _preserve(self, master: dict[str, Tensor]) -> Tensor | float:
        """Divergence from the untuned model on some of the kept rows."""
        if not self.kept or self.settings.preserve_weight == 0:
            return 0.0
        chosen = torch.randperm(len(self.kept), generator=self.generator)[: self.settings.preserve_rows].tolist()
        inputs = self.kept_inputs.select(chosen)
        with torch.no_grad():
            reference = torch.log_softmax(run_from(self.view, inputs).float(), -1)
        logits = run_from(self.view, inputs, parameters=self._served(master))
        return self.settings.preserve_weight * divergence(logits, reference)

    def _served(self, master: dict[str, Tensor]) -> dict[str, Tensor]:
        """The master copy in the model's dtype: what is judged is what will be served."""
        return {name: tensor.to(self.view.base.dtype) for name, tensor in master.items()}

    @staticmethod
    def _detached(master: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in master.items()}
