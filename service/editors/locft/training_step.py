"""One step of fine-tuning and its judgement: masked cross-entropy on rows, Adam on an fp32 copy. Knows no items and no epochs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.editors.correctness import answered_mask
from service.editors.locft.accumulation import GradientAccumulation
from service.editors.locft.activation_cache import Activations
from service.editors.locft.batching import Size, parts_by_length
from service.editors.locft.packed_rows import RowStore
from service.editors.locft.settings import LocftSettings
from service.editors.losses import divergence, edit_loss, finite
from service.editors.protocol import Hooks
from service.lm.overlay import Overlay, View, make_view
from service.lm.prompts import Batch
from service.lm.resume import run_from

_PART_TOKENS = 8_192  # of one forward pass, padding included
_LOGIT_BYTES = 512_000_000  # of the predictions of one forward pass in fp32, of which a step holds some copies
_FLOAT_BYTES = 4
_EXAM_TOKENS = 1_024
_PADDING = {"cpu": 32}  # tokens of padding in one pass that cost as much as another pass
_PADDING_ELSEWHERE = 512  # a device with many cores is not filled by a few rows


class Step(NamedTuple):
    """What a step saw before it moved anything, and whether it did."""

    loss: float
    right: Tensor  # (rows,) bool
    moved: bool


class Master:
    """The tensors that are trained, in fp32 whatever serves: steps of Adam vanish in the rounding of 16-bit weights."""

    def __init__(self, view: View, names: Sequence[str], rate: float, start: Mapping[str, Tensor]) -> None:
        own = dict(view.model.named_parameters())
        self._dtype, self._rate = view.base.dtype, rate
        dtype = torch.promote_types(self._dtype, torch.float32)
        self.tensors = {
            name: start.get(name, own[name]).detach().to(own[name].device, dtype, copy=True).requires_grad_() for name in names
        }
        self.forget_moments()

    def forget_moments(self) -> None:
        """Adam begins anew, where the tensors are."""
        self._optimizer = torch.optim.Adam(self.tensors.values(), lr=self._rate, weight_decay=0.0)

    def slow(self, share: float) -> None:
        """Go on at this share of the rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = share * self._rate

    def served(self) -> dict[str, Tensor]:
        """The tensors in the model's dtype, gradients attached: what is judged is what will be served."""
        return {name: tensor.to(self._dtype) for name, tensor in self.tensors.items()}

    def trained(self) -> dict[str, Tensor]:
        """The tensors as they are served, apart from this."""
        return {name: tensor.detach().to(self._dtype, copy=True) for name, tensor in self.tensors.items()}

    def descend(self) -> None:
        """One step of Adam along the gradients that were gathered, which are gone then."""
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True, eq=False)
class Tuning:
    """Rows, what enters the tuned block for them, and how they are weighed. `view` is the base's, and nobody else uses it."""

    view: View
    rows: RowStore
    states: Activations
    settings: LocftSettings
    generator: torch.Generator

    def step(self, master: Master, chosen: Sequence[int], hooks: Hooks, *, always: bool = False) -> Step:
        """Learns the chosen rows, unless they have nothing to teach (or `always`). Raises FitFailed where numbers are not finite.

        Rows of like length go through the model together, and the gradients of these parts add up to that of all rows. Parts wait
        for theirs only until it is known that the step will be taken.
        """
        served = master.served()
        value, moved = 0.0, always
        right = torch.zeros(len(chosen), dtype=torch.bool)
        waiting = GradientAccumulation(self._room(_PART_TOKENS))
        for part in self._parts(chosen, _PART_TOKENS):
            hooks.begin_step()
            waiting.make_room_for(self._size(part, chosen))
            term, right[part] = self._learn(part, chosen, served)
            waiting.add(part, term)
            value += finite(term)
            del term  # or its graph would outlast its wait
            moved = moved or not teaches_nothing(self.settings, value, right[part])
            if moved:
                waiting.backward()
                for left in waiting.let_go():
                    hooks.begin_step()
                    self._learn(left, chosen, served)[0].backward()
        if moved:
            for term in self._preserve(served, hooks):
                term.backward()
            master.descend()
        return Step(value, right, moved)

    def answers(self, chosen: Sequence[int], parameters: Mapping[str, Tensor]) -> Tensor:
        """(rows,) bool: which of the chosen rows are answered, with the margin."""
        right = torch.zeros(len(chosen), dtype=torch.bool)
        for part in self._parts(chosen, _PART_TOKENS):
            inputs = self.states.batch([chosen[place] for place in part])
            with torch.no_grad():
                logits = run_from(self.view, inputs, parameters=parameters)
            right[part] = self._answered(logits, inputs.batch, self.settings.stop_margin)
        return right

    def exam(self, overlay: Overlay, hooks: Hooks) -> Iterator[tuple[list[int], list[float], list[bool]]]:
        """The literal rows under an overlay, some at a time: which, their mean losses, whether greedy decoding gives them."""
        served = make_view(self.view.base, overlay.tensors)
        literal = [row for row in range(self.rows.asked) if self.rows.literal[row]]
        for part in self._parts(literal, _EXAM_TOKENS):
            hooks.begin_step()
            chosen = [literal[place] for place in part]
            inputs = self.states.batch(chosen)
            logits = run_from(served, inputs)
            losses = cross_entropy(logits.float(), inputs.batch.labels, reduction="none")
            yield chosen, _means(losses, inputs.batch).tolist(), self._answered(logits, inputs.batch, 0.0).tolist()

    def _learn(self, part: Sequence[int], chosen: Sequence[int], parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the rows at these places in `chosen` add to its loss, and which (rows,) bool are right as `judge` says."""
        rows = [chosen[place] for place in part]
        inputs = self.states.batch(rows)
        logits, batch = run_from(self.view, inputs, parameters=parameters), inputs.batch
        row_of = batch.row_of
        by_loss = self.settings.judge == "loss"  # then a look at the answers would be wasted
        right = None if by_loss else self._answered(logits, batch, self.settings.stop_margin)
        if self.settings.objective == "last_position":
            logits = logits[_first_of_each(row_of)][row_of]
        losses = cross_entropy(logits.float(), batch.labels, reduction="none")
        if right is None:
            right = (_means(losses.detach(), batch) < self.settings.stop_loss).cpu()
        return edit_loss(losses, row_of, len(rows), self.settings.reduction) * self._share(part, chosen), right

    def _answered(self, logits: Tensor, batch: Batch, margin: float) -> Tensor:
        return answered_mask(logits, batch.labels, batch.row_of, len(batch.ids), margin).cpu()

    def _share(self, part: Sequence[int], chosen: Sequence[int]) -> float:
        """What the mean over a part, at these places in `chosen`, counts in the mean over all: by rows, or by their tokens."""
        if self.settings.reduction == "sample":
            return len(part) / len(chosen)
        counts = [self.rows.targets(row) for row in chosen]
        return sum(counts[place] for place in part) / sum(counts)

    def _preserve(self, parameters: Mapping[str, Tensor], hooks: Hooks) -> Iterator[Tensor]:
        """Divergence from the base model on some of the kept rows, in terms that are to be summed."""
        kept = len(self.rows) - self.rows.asked
        if not kept or self.settings.preserve_weight == 0:
            return
        drawn = torch.randperm(kept, generator=self.generator)[: self.settings.preserve_rows] + self.rows.asked
        chosen = drawn.tolist()
        positions = sum(self.rows.targets(row) for row in chosen)
        for part in self._parts(chosen, _PART_TOKENS):
            hooks.begin_step()
            rows = [chosen[place] for place in part]
            inputs = self.states.batch(rows)
            reference = torch.log_softmax(self.states.base_logits(rows, inputs).float(), -1)
            term = divergence(run_from(self.view, inputs, parameters=parameters), reference)
            term = term * (self.settings.preserve_weight * len(reference) / positions)
            finite(term)
            yield term

    def _parts(self, chosen: Sequence[int], tokens: int) -> list[list[int]]:
        padding = _PADDING.get(self.view.base.device.type, _PADDING_ELSEWHERE)
        rows = self.rows
        return parts_by_length(chosen, rows.length, rows.targets, room=self._room(tokens), padding=padding)

    def _room(self, tokens: int) -> Size:
        head: Any = self.view.anatomy.lm_head
        return Size(tokens, _LOGIT_BYTES // (_FLOAT_BYTES * head.weight.shape[0]))

    def _size(self, part: Sequence[int], chosen: Sequence[int]) -> Size:
        rows = [chosen[place] for place in part]
        return Size(len(rows) * max(self.rows.length(row) for row in rows), sum(self.rows.targets(row) for row in rows))


def teaches_nothing(settings: LocftSettings, loss: float, right: Tensor) -> bool:
    """Whether a batch is skipped. A mean would hide one bad edit among ninety-nine good ones.

    Asked of a part of the batch, with its share of the loss, a no is one for the whole.
    """
    return loss < settings.stop_loss if settings.judge == "loss" else bool(right.all())


def _means(losses: Tensor, batch: Batch) -> Tensor:
    """(rows,) the mean loss of each row's target tokens, for `losses` (N,)."""
    row_of, rows = batch.row_of, len(batch.ids)
    return losses.new_zeros(rows).index_add_(0, row_of, losses) / row_of.bincount(minlength=rows)


def _first_of_each(row_of: Tensor) -> Tensor:
    """Where each row's first target token stands among all of them: its prediction is made at the prompt's last position."""
    before = torch.cat([row_of.new_full((1,), -1), row_of[:-1]])
    return (row_of != before).nonzero()[:, 0]
