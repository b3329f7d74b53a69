"""The authors' fine-tuning with torch and transformers alone: the reference of tests of the trainer, and of its benchmark.

The whole model is in one precision and in evaluation mode, and all parameters but the tuned ones are frozen. Whole rows, padded
on the left to the longest of the batch, pass through the model, with the cache that the model makes. The logits of all positions
but the last are copied, and their cross-entropies computed, including padding and prompt. A mask gives the mean a row, then the
mean over rows. The optimizer is torch's Adam. Texts are encoded beforehand; the authors encode them in every epoch, which takes
milliseconds. Nothing of the service is used.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Row = tuple[Sequence[int], int]  # ids of prompt and target, EOS included, and the length of the prompt


class PlainLocft:
    """Trains the tensors `names` of a copy of the model, epoch by epoch."""

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[Row],
        names: Sequence[str],
        *,
        rate: float,
        pad_id: int,
        stop_loss: float = 1e-2,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._rows, self._names, self._pad_id, self._stop_loss = rows, names, pad_id, stop_loss
        self._model: Any = copy.deepcopy(model).to(dtype).eval()
        self._parameters: dict[str, nn.Parameter] = dict(self._model.named_parameters())
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in names)
        self._optimizer = torch.optim.Adam([self._parameters[name] for name in names], lr=rate, weight_decay=0)
        self._cross_entropy = nn.CrossEntropyLoss(reduction="none")

    def epoch(self, batches: Sequence[Sequence[int]]) -> float:
        """One pass over batches of row numbers. Batches with a mean loss under `stop_loss` make no step.

        Returns the mean loss over the rows, each before the step of its batch.
        """
        total, count = 0.0, 0
        for batch in batches:
            loss = self._loss([self._rows[number] for number in batch])
            total, count = total + loss.item() * len(batch), count + len(batch)
            if loss.item() >= self._stop_loss:
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
        return total / count

    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors by name."""
        return {name: self._parameters[name].detach() for name in self._names}

    def _loss(self, rows: Sequence[Row]) -> Tensor:
        """The mean over rows of the mean over each row's target tokens."""
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), self._pad_id)
        attention, targets = torch.zeros_like(ids), torch.zeros_like(ids)
        for number, (row, prompt) in enumerate(rows):
            first = width - len(row)
            ids[number, first:] = torch.tensor(row)
            attention[number, first:] = 1
            targets[number, first + prompt :] = 1
        device = next(iter(self._parameters.values())).device
        ids, attention, targets = ids.to(device), attention.to(device), targets.to(device)
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        logits = self._model(input_ids=ids, attention_mask=attention, position_ids=positions).logits  # (B, T, V)
        shifted, labels, mask = logits[..., :-1, :].contiguous(), ids[..., 1:].contiguous(), targets[..., 1:].contiguous()
        losses = self._cross_entropy(shifted.view(-1, shifted.shape[-1]), labels.view(-1)).view(labels.shape)  # (B, T - 1)
        return ((losses * mask).sum(-1) / mask.sum(-1)).mean()


def plain_locft(
    model: nn.Module,
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    rate: float,
    epochs: Iterable[Sequence[Sequence[int]]],
    pad_id: int,
    stop_loss: float = 1e-2,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The tensors `names` after training a copy of the model; each of `epochs` is a list of batches of row numbers.

    It ends early when the mean loss of an epoch is under `stop_loss`.
    """
    plain = PlainLocft(model, rows, names, rate=rate, pad_id=pad_id, stop_loss=stop_loss, dtype=dtype)
    for batches in epochs:
        if plain.epoch(batches) < stop_loss:
            break
    return plain.tensors()
