"""Hidden states that no training step changes, stored by row: in memory up to a budget, then on disk, else recomputed per batch.

Training changes nothing below the tuned block, so the blocks below run once per row. The base model's states on rows that must
stay do not change either. Rows are stored end to end without padding: one long row takes no room of other rows. Memory and disk
hold the same numbers; recomputed states may differ in the last bit where a batch has another shape.
"""

import mmap
import os
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from service.domain.errors import Unavailable
from service.editors.locft.packed_rows import PackedRows
from service.lm.cached_step import BlockInputs, compute_block_inputs, run_from
from service.lm.overlay import Recording, View, apply_lm_head
from service.lm.prompts import collate

_ABSENT = -1  # in place of a start


class ActivationCache:
    """Hidden states (tokens, D) of packed rows, stored at the first request of a row. A context manager; its end frees them.

    Of every row: the states that enter `block`, for all tokens but the last. Of rows that must stay also: the base model's states
    behind the final norm, at the target tokens.
    """

    def __init__(self, view: View, rows: PackedRows, *, block: int, memory_bytes: int, disk_bytes: int) -> None:
        self._view, self._rows, self._block = view, rows, block
        width, dtype = view.anatomy.width, view.base.dtype
        token_bytes = width * dtype.itemsize
        total = rows.tokens - len(rows) + sum(rows.targets(index) for index in range(rows.learned, len(rows)))
        in_memory = min(total, memory_bytes // token_bytes)
        on_disk = min(total - in_memory, disk_bytes // token_bytes)
        self._tiers = [torch.empty(in_memory, width, dtype=dtype), _file_tensor(on_disk, width, dtype)]
        self._used = [0, 0]  # tokens, by tier
        keys = 2 * len(rows)  # block inputs of row `index` under `index`, final states of it under `index + len(rows)`
        self._tier = torch.zeros(keys, dtype=torch.int8)
        self._start = torch.full((keys,), _ABSENT)  # first token in its tier
        self._count = torch.zeros(keys, dtype=torch.int32)  # tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tiers = []  # frees the memory, and the file, which has no name

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes reserved in memory and on disk: the most that this cache ever holds."""
        memory, disk = (tier.numel() * tier.element_size() for tier in self._tiers)
        return memory, disk

    @property
    def row_count(self) -> int:
        """The number of rows whose block inputs are stored."""
        return int((self._start[: len(self._rows)] != _ABSENT).sum())

    def batch(self, chosen: Sequence[int]) -> BlockInputs:
        """The chosen rows, in the given order, padded on the right to the longest of them."""
        missing = [index for index in chosen if self._start[index] == _ABSENT]
        computed = self._compute(missing)
        rows = [self._rows[index] for index in chosen]
        batch = collate(self._view.base, rows)
        count, width = batch.ids.shape
        hidden = torch.zeros(count, width - 1, self._view.anatomy.width, dtype=self._view.base.dtype)  # (B, T - 1, D)
        for number, index in enumerate(chosen):
            states = computed[index] if index in computed else self._load(index)
            hidden[number, : len(states)] = states
        return BlockInputs(self._block, batch, hidden.to(self._view.base.device))

    @torch.no_grad()
    def base_logits(self, chosen: Sequence[int], inputs: BlockInputs) -> Tensor:
        """The base model's predictions (N, V) of the target tokens of rows that must stay, whose batch is `inputs`.

        The states behind the final norm are stored, so that the upper blocks do not run twice in every step.
        """
        keys = [index + len(self._rows) for index in chosen]
        if all(self._start[key] != _ABSENT for key in keys):
            return apply_lm_head(self._view, torch.cat([self._load(key) for key in keys]).to(self._view.base.device))
        recording = Recording()
        logits = run_from(self._view, inputs, recording=recording)
        assert recording.final is not None
        for number, key in enumerate(keys):
            if self._start[key] == _ABSENT:
                self._store(key, recording.final[inputs.batch.row_of == number].cpu())
        return logits

    def _compute(self, missing: Sequence[int]) -> dict[int, Tensor]:
        """The block inputs of rows that are not stored, in one pass. They are stored as far as there is room."""
        if not missing:
            return {}
        rows = [self._rows[index] for index in missing]
        hidden = compute_block_inputs(self._view, rows, block=self._block, max_batch=len(rows)).hidden.cpu()
        computed = {
            index: hidden[number, : len(row.ids) - 1] for number, (index, row) in enumerate(zip(missing, rows, strict=True))
        }
        for index, states in computed.items():
            self._store(index, states)
        return computed

    def _store(self, key: int, states: Tensor) -> None:
        for number, tier in enumerate(self._tiers):
            start = self._used[number]
            if start + len(states) <= len(tier):
                tier[start : start + len(states)] = states
                self._tier[key], self._start[key], self._count[key] = number, start, len(states)
                self._used[number] += len(states)
                return

    def _load(self, key: int) -> Tensor:
        start = int(self._start[key])
        return self._tiers[int(self._tier[key])][start : start + int(self._count[key])]


def _file_tensor(tokens: int, width: int, dtype: torch.dtype) -> Tensor:
    """A tensor (tokens, width) over a temporary file. Raises Unavailable if the disk has no room.

    The room is reserved at once: a disk that fills up later would end the process. The file never has a name, so that nothing is
    left of it, however the process ends.
    """
    if tokens == 0:
        return torch.empty(0, width, dtype=dtype)
    size = tokens * width * dtype.itemsize
    try:
        with tempfile.TemporaryFile(prefix="errata-") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype).view(tokens, width)
    except OSError as error:
        raise Unavailable(
            "The retrain's activation cache found no room in the temporary folder; make room there or lower locft.cache_disk_mb."
        ) from error
