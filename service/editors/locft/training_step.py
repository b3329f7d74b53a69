"""One step of fine-tuning and its evaluation: cross-entropy on rows, Adam on fp32 weights. Knows no items and no epochs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.editors.answer_margins import answered_mask
from service.editors.locft.accumulation import GradientAccumulation
from service.editors.locft.activation_cache import ActivationCache
from service.editors.locft.batching import Size, split_parts_by_length
from service.editors.locft.packed_rows import PackedRows
from service.editors.locft.settings import LocftSettings
from service.editors.losses import divergence, edit_loss, require_finite
from service.editors.protocol import Hooks, StartElsewhere
from service.lm.cached_step import run_from
from service.lm.components import Weight, make_dense
from service.lm.overlay import Overlay, View, make_view
from service.lm.prompts import Batch
from service.lm.weights import read_weight

_PART_TOKENS = 8_192  # of one forward pass, padding included
_LOGIT_BYTES = 512_000_000  # of the logits of one forward pass in fp32; a step holds some copies of them
_FLOAT_BYTES = 4
_EXAM_TOKENS = 1_024
_PADDING = {"cpu": 32}  # tokens of padding in one pass that cost as much as another pass
_PADDING_ELSEWHERE = 512  # a few rows do not fill a device with many cores


class StepResult(NamedTuple):
    """Loss and right rows before the step, and whether the step changed the weights."""

    loss: float
    is_right: Tensor  # (rows,) bool
    has_moved: bool


class MasterWeights:
    """The trained tensors, in fp32 for any served dtype: steps of Adam vanish in the rounding of 16-bit weights.

    Here each weight is trained whole. A method that trains another form of the weights overrides how these tensors begin
    (`begin`), what they serve (`served_tensors`) and what is kept of them (`copy_weights`).
    """

    def __init__(
        self,
        view: View,
        names: Sequence[str],
        rate: float,
        start: Mapping[str, Weight],
        generator: torch.Generator | None = None,
    ) -> None:
        self.names, self._dtype, self._rate = tuple(names), view.base.dtype, rate
        self.tensors = self.begin(view, start, generator)
        self.forget_moments()

    def begin(self, view: View, start: Mapping[str, Weight], generator: torch.Generator | None) -> dict[str, Tensor]:
        """The trained tensors before the first step, with gradients: from `start`, else from the base. Raises StartElsewhere if
        they cannot begin from `start`.
        """
        if start and set(start) != set(self.names):
            raise StartElsewhere(
                "The tensors to start from were trained at another location than the settings name.", field="start"
            )
        dtype = torch.promote_types(self._dtype, torch.float32)
        tensors = {}
        for name in self.names:
            own = read_weight(view.model, name)
            weight = make_dense(start.get(name, own), own)
            tensors[name] = weight.detach().to(own.device, dtype, copy=True).requires_grad_()
        return tensors

    def forget_moments(self) -> None:
        """Replace Adam by a new one. The tensors stay."""
        self._optimizer = torch.optim.Adam(self.tensors.values(), lr=self._rate, weight_decay=0.0)

    def scale_rate(self, share: float) -> None:
        """Set the rate to this share of the initial one."""
        for group in self._optimizer.param_groups:
            group["lr"] = share * self._rate

    def served_tensors(self) -> dict[str, Tensor]:
        """The weights in the served dtype; gradients flow to the trained tensors. The served numbers are the evaluated ones."""
        return {name: tensor.to(self._dtype) for name, tensor in self.tensors.items()}

    def copy_weights(self) -> dict[str, Weight]:
        """Copies of the weights as an overlay keeps them, without gradients."""
        return {name: tensor.detach().to(self._dtype, copy=True) for name, tensor in self.tensors.items()}

    def descend(self) -> None:
        """One step of Adam along the accumulated gradients, which are cleared."""
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains and checks rows. `states` holds their inputs to the tuned block. `view` is a view of the base for this use alone."""

    view: View
    rows: PackedRows
    states: ActivationCache
    settings: LocftSettings
    generator: torch.Generator

    def step(self, master: MasterWeights, chosen: Sequence[int], hooks: Hooks, *, always: bool = False) -> StepResult:
        """Learn the chosen rows, or skip learned ones (unless `always`). Raises FitFailed on numbers that are not finite.

        Rows of like length are a part: one forward pass. The gradients of the parts add up to the gradient of all rows. The
        backward passes wait until it is known that the step is taken.
        """
        parameters = master.served_tensors()
        loss, has_moved = 0.0, always
        is_right = torch.zeros(len(chosen), dtype=torch.bool)
        gradients = GradientAccumulation(self._limit(_PART_TOKENS))
        for part in self._parts(chosen, _PART_TOKENS):
            hooks.begin_step()
            gradients.make_room_for(self._size(part, chosen))
            term, is_right[part] = self._learn(part, chosen, parameters)
            gradients.add(part, term)
            loss += require_finite(term)
            del term  # a reference here would keep the graph alive after its release
            has_moved = has_moved or not can_skip(self.settings, loss, is_right[part])
            if has_moved:
                gradients.backward()
                for released in gradients.pop_released():
                    hooks.begin_step()
                    self._learn(released, chosen, parameters)[0].backward()
        if has_moved:
            for term in self._preserve(parameters, hooks):
                term.backward()
            master.descend()
        return StepResult(loss, is_right, has_moved)

    def check_answers(self, chosen: Sequence[int], parameters: Mapping[str, Tensor]) -> Tensor:
        """(rows,) bool: which of the chosen rows are answered, with the margin."""
        is_right = torch.zeros(len(chosen), dtype=torch.bool)
        for part in self._parts(chosen, _PART_TOKENS):
            inputs = self.states.batch([chosen[index] for index in part])
            with torch.no_grad():
                logits = run_from(self.view, inputs, parameters=parameters)
            is_right[part] = self._answered_mask(logits, inputs.batch, self.settings.stop_margin)
        return is_right

    def score_literal_rows(self, overlay: Overlay, hooks: Hooks) -> Iterator[tuple[list[int], list[float], list[bool]]]:
        """The literal rows under an overlay, in parts: indexes, mean losses, and whether greedy decoding gives the targets."""
        served_view = make_view(self.view.base, overlay.tensors)
        literal = [row for row in range(self.rows.learned) if self.rows.is_literal[row]]
        for part in self._parts(literal, _EXAM_TOKENS):
            hooks.begin_step()
            chosen = [literal[index] for index in part]
            inputs = self.states.batch(chosen)
            logits = run_from(served_view, inputs)
            losses = cross_entropy(logits.float(), inputs.batch.labels, reduction="none")
            yield chosen, _means(losses, inputs.batch).tolist(), self._answered_mask(logits, inputs.batch, 0.0).tolist()

    def _learn(self, part: Sequence[int], chosen: Sequence[int], parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The share of the loss of the rows at indexes `part` of `chosen`, and which (rows,) bool are right by `judge`."""
        rows = [chosen[index] for index in part]
        inputs = self.states.batch(rows)
        logits, batch = run_from(self.view, inputs, parameters=parameters), inputs.batch
        row_of = batch.row_of
        is_by_loss = self.settings.judge == "loss"  # then the answers need no check
        is_right = None if is_by_loss else self._answered_mask(logits, batch, self.settings.stop_margin)
        if self.settings.objective == "last_position":
            logits = logits[_first_targets(row_of)][row_of]
        losses = cross_entropy(logits.float(), batch.labels, reduction="none")
        if is_right is None:
            is_right = (_means(losses.detach(), batch) < self.settings.stop_loss).cpu()
        return edit_loss(losses, row_of, len(rows), self.settings.reduction) * self._share(part, chosen), is_right

    def _answered_mask(self, logits: Tensor, batch: Batch, margin: float) -> Tensor:
        return answered_mask(logits, batch.labels, batch.row_of, len(batch.ids), margin).cpu()

    def _share(self, part: Sequence[int], chosen: Sequence[int]) -> float:
        """The weight of the mean over a part (indexes of `chosen`) in the mean over all: by rows, or by their tokens."""
        if self.settings.reduction == "sample":
            return len(part) / len(chosen)
        counts = [self.rows.targets(row) for row in chosen]
        return sum(counts[index] for index in part) / sum(counts)

    def _preserve(self, parameters: Mapping[str, Tensor], hooks: Hooks) -> Iterator[Tensor]:
        """Divergence from the base model on samples of the kept rows, the questions and the contrast rows, as terms of a sum."""
        settings, rows = self.settings, self.rows
        yield from self._keep(rows.kept, settings.preserve_rows, settings.preserve_weight, parameters, hooks)
        yield from self._keep(rows.questions, settings.question_rows, settings.preserve_weight, parameters, hooks)
        yield from self._keep(rows.contrast, settings.contrast_rows, settings.contrast_weight, parameters, hooks)

    def _keep(self, kept: range, count: int, weight: float, parameters: Mapping[str, Tensor], hooks: Hooks) -> Iterator[Tensor]:
        if not kept or weight == 0:
            return
        sample = torch.randperm(len(kept), generator=self.generator)[:count] + kept.start
        chosen = sample.tolist()
        positions = sum(self.rows.targets(row) for row in chosen)
        for part in self._parts(chosen, _PART_TOKENS):
            hooks.begin_step()
            rows = [chosen[index] for index in part]
            inputs = self.states.batch(rows)
            reference = torch.log_softmax(self.states.base_logits(rows, inputs).float(), -1)
            term = divergence(run_from(self.view, inputs, parameters=parameters), reference)
            term = term * (weight * len(reference) / positions)
            require_finite(term)
            yield term

    def _parts(self, chosen: Sequence[int], tokens: int) -> list[list[int]]:
        padding = _PADDING.get(self.view.base.device.type, _PADDING_ELSEWHERE)
        rows = self.rows
        return split_parts_by_length(chosen, rows.length, rows.targets, limit=self._limit(tokens), padding=padding)

    def _limit(self, tokens: int) -> Size:
        head: Any = self.view.anatomy.lm_head
        return Size(tokens, _LOGIT_BYTES // (_FLOAT_BYTES * head.weight.shape[0]))

    def _size(self, part: Sequence[int], chosen: Sequence[int]) -> Size:
        rows = [chosen[index] for index in part]
        return Size(len(rows) * max(self.rows.length(row) for row in rows), sum(self.rows.targets(row) for row in rows))


def can_skip(settings: LocftSettings, loss: float, is_right: Tensor) -> bool:
    """Whether a batch is skipped: all rows are right, since a mean would hide one bad edit among ninety-nine good ones.

    With `judge: loss`, whether the loss is small. False for a part, with the loss so far, means false for the whole batch.
    """
    return loss < settings.stop_loss if settings.judge == "loss" else bool(is_right.all())


def _means(losses: Tensor, batch: Batch) -> Tensor:
    """(rows,) the mean loss of each row's target tokens, for `losses` (N,)."""
    row_of, rows = batch.row_of, len(batch.ids)
    return losses.new_zeros(rows).index_add_(0, row_of, losses) / row_of.bincount(minlength=rows)


def _first_targets(row_of: Tensor) -> Tensor:
    """Indexes (rows,) of each row's first target token, whose prediction is at the prompt's last position."""
    before = torch.cat([row_of.new_full((1,), -1), row_of[:-1]])
    return (row_of != before).nonzero()[:, 0]
