"""What no step changes, kept by row: in memory up to a budget, then on disk, else computed again for every batch.

Nothing below the tuned block changes while it is trained, so the blocks below run once a row. Neither does what the base model
says on rows that must stay. States are stored row behind row without padding: one long row costs no other row anything. In memory
and on disk the same numbers are kept; what is computed again may differ in the last bit where its batch has another shape.
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
from service.editors.locft.packed_rows import RowStore
from service.lm.overlay import Recording, View, apply_lm_head
from service.lm.prompts import collate
from service.lm.resume import BlockInputs, compute_block_inputs, run_from

_ABSENT = -1


class Activations:
    """States (tokens, D) of the rows of a store, filled as rows are first asked for: what enters `block` for all tokens of a row
    but the last, and for rows that must stay what leaves the base model. A context; what it holds is freed at its end.
    """

    def __init__(self, view: View, rows: RowStore, *, block: int, memory_bytes: int, disk_bytes: int) -> None:
        self._view, self._rows, self._block = view, rows, block
        width, dtype = view.anatomy.width, view.base.dtype
        token_bytes = width * dtype.itemsize
        most = rows.tokens - len(rows) + sum(rows.targets(index) for index in range(rows.asked, len(rows)))
        in_memory = min(most, memory_bytes // token_bytes)
        on_disk = min(most - in_memory, disk_bytes // token_bytes)
        self._tiers = [torch.empty(in_memory, width, dtype=dtype), _on_disk(on_disk, width, dtype)]
        self._used = [0, 0]  # tokens, by tier
        kinds = 2 * len(rows)  # what enters for row `index`, and what leaves for it under `index + len(rows)`
        self._tier = torch.zeros(kinds, dtype=torch.int8)
        self._start = torch.full((kinds,), _ABSENT)  # first token in its tier
        self._count = torch.zeros(kinds, dtype=torch.int32)  # tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tiers = []  # frees the memory, and the file, which has no name

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes reserved in memory and on disk: what this may ever hold."""
        memory, disk = (tier.numel() * tier.element_size() for tier in self._tiers)
        return memory, disk

    @property
    def held(self) -> int:
        """For how many rows what enters is kept."""
        return int((self._start[: len(self._rows)] != _ABSENT).sum())

    def batch(self, chosen: Sequence[int]) -> BlockInputs:
        """The chosen rows, in the order given and padded on the right to the longest of them."""
        missing = [index for index in chosen if self._start[index] == _ABSENT]
        fresh = self._computed(missing)
        rows = [self._rows[index] for index in chosen]
        batch = collate(self._view.base, rows)
        count, width = batch.ids.shape
        entering = torch.zeros(count, width - 1, self._view.anatomy.width, dtype=self._view.base.dtype)  # (B, T - 1, D)
        for place, index in enumerate(chosen):
            states = fresh[index] if index in fresh else self._kept(index)
            entering[place, : len(states)] = states
        return BlockInputs(self._block, batch, entering.to(self._view.base.device))

    @torch.no_grad()
    def base_logits(self, chosen: Sequence[int], inputs: BlockInputs) -> Tensor:
        """What the base model predicts (N, V) for the target tokens of rows that must stay, whose batch is `inputs`.

        Kept are its states behind the final norm, so that the blocks above need not run twice for every step.
        """
        keys = [index + len(self._rows) for index in chosen]
        if all(self._start[key] != _ABSENT for key in keys):
            return apply_lm_head(self._view, torch.cat([self._kept(key) for key in keys]).to(self._view.base.device))
        recording = Recording()
        logits = run_from(self._view, inputs, recording=recording)
        assert recording.final is not None
        for place, key in enumerate(keys):
            if self._start[key] == _ABSENT:
                self._keep(key, recording.final[inputs.batch.row_of == place].cpu())
        return logits

    def _computed(self, missing: Sequence[int]) -> dict[int, Tensor]:
        """States of rows that are not kept, in one pass; what there is room for is kept from now on."""
        if not missing:
            return {}
        rows = [self._rows[index] for index in missing]
        entering = compute_block_inputs(self._view, rows, block=self._block, max_batch=len(rows)).entering.cpu()
        found = {index: entering[place, : len(row.ids) - 1] for place, (index, row) in enumerate(zip(missing, rows, strict=True))}
        for index, states in found.items():
            self._keep(index, states)
        return found

    def _keep(self, key: int, states: Tensor) -> None:
        for number, tier in enumerate(self._tiers):
            start = self._used[number]
            if start + len(states) <= len(tier):
                tier[start : start + len(states)] = states
                self._tier[key], self._start[key], self._count[key] = number, start, len(states)
                self._used[number] += len(states)
                return

    def _kept(self, key: int) -> Tensor:
        start = int(self._start[key])
        return self._tiers[int(self._tier[key])][start : start + int(self._count[key])]


def _on_disk(tokens: int, width: int, dtype: torch.dtype) -> Tensor:
    """A tensor (tokens, width) over a temporary file. Room is reserved at once: a disk that fills up later would end the process.

    The file never has a name, so that nothing is left of it whatever happens to the process.
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
