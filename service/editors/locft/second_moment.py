"""Second moments of what enters the tuned matrices: C = E[k kᵀ], the mean over all tokens of some rows. Knows no training."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from service.editors.locft.location import TunedLocation
from service.editors.neutral import NeutralSentences
from service.editors.protocol import Hooks
from service.lm.cached_step import compute_block_inputs
from service.lm.overlay import View, receive_inputs
from service.lm.prompts import Row, row_from_ids
from service.lm.weights import input_axis

# 1,000 sentences are some 25,000 tokens: many times the width of a small model's matrices, and above that of the widest.
_SENTENCES = 1_000
_KIND = "second moments"


def matrices_of(view: View, location: TunedLocation) -> dict[str, int]:
    """The weights of a location that are matrices of linear layers, each with the axis of its inputs."""
    axes = {name: input_axis(view.model, name) for name in location.names}
    return {name: axis for name, axis in axes.items() if axis is not None}


def neutral_moments(view: View, location: TunedLocation, neutral: NeutralSentences, hooks: Hooks) -> Mapping[str, Tensor]:
    """C₀ of each tuned matrix, (width, width) on the CPU, over the first neutral sentences. `view` is one of the base, for this
    use alone.

    It depends on the base and the location alone, never on edits, and is kept with what other fits need. A matrix that nothing
    enters, such as one of an expert that is never chosen, is absent.
    """
    sentences = neutral.sentences[:_SENTENCES]

    def compute() -> Mapping[str, Tensor]:
        rows = [row_from_ids(view.base, sentence.ids, 1) for sentence in sentences]
        return {name: moment.cpu() for name, moment in mean_moments(view, location, rows, hooks).items()}

    return neutral.get_or_make((_KIND, location.names, len(sentences)), compute, keep=1)


def mean_moments(view: View, location: TunedLocation, rows: Sequence[Row], hooks: Hooks) -> Mapping[str, Tensor]:
    """The second moment of what enters each tuned matrix, over all tokens of `rows` but the last of each, which predicts nothing.

    In fp32, or in the base's dtype if it is wider. `view` must have no other user.
    """
    sums = {name: _MomentSum(view.base.dtype) for name in matrices_of(view, location)}
    receivers = {name.rpartition(".")[0]: total.add for name, total in sums.items()}
    with receive_inputs(view, receivers):
        for part in _split_by_length([row for row in rows if len(row) > 1], hooks):
            compute_block_inputs(view, part, block=location.blocks[-1] + 1, max_batch=len(part))
    return {name: total.mean() for name, total in sums.items() if total.count}


def _split_by_length(rows: Sequence[Row], hooks: Hooks) -> Iterator[Sequence[Row]]:
    """Rows of one length together: no padding enters a matrix."""
    for _, group in groupby(sorted(rows, key=len), key=len):
        yield from hooks.split(list(group), len)


class _MomentSum:
    """Σ k kᵀ over the tokens that were added, and their number."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.count = 0
        self._dtype = torch.promote_types(dtype, torch.float32)
        self._sum: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        keys = inputs.detach().reshape(-1, inputs.shape[-1]).to(self._dtype)  # (tokens, width)
        if self._sum is None:
            self._sum = keys.new_zeros(keys.shape[1], keys.shape[1])
        self._sum.addmm_(keys.T, keys)
        self.count += len(keys)

    def mean(self) -> Tensor:
        assert self._sum is not None
        return self._sum.div_(self.count)
