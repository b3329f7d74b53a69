"""The choice of a store's arithmetic: what the store has pinned, else what the settings name, else what a short trial finds.

Where a store of an older release has pinned nothing, it keeps what that release did.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from service.domain.arithmetic import SET, Arithmetic, keep_pinned
from service.domain.version import Head
from service.lm.arithmetic_trial import has_bf16_units, time_dtypes, time_threads
from service.lm.base import DTYPES, default_dtype, find_device, name_of
from service.lm.model_size import ModelSize, read_model_size
from service.lm.usable_cpus import count_usable_cpus
from service.settings import Settings

MIN_WEIGHTS = 50_000_000  # in smaller models overhead outweighs the products, and single rows answer slower in bf16 (decision 33)
BF16_GAIN = 1.5  # times faster from which bfloat16 is worth its rounding
THREADS_GAIN = 1.3  # times faster from which more threads are worth the CPUs, which answers and fits share
MAX_THREADS = 8
OLDER = "as the release did that made the store"


def choose_arithmetic(settings: Settings, folder: Path, pinned: Head | None) -> Arithmetic:
    """The arithmetic of the model in a folder. `pinned`: the store's head, None for a new store.

    Raises Conflict for another dtype than the store's, and Refused for a device or a model that cannot serve.
    """
    dtype, threads = settings.asked_dtype, settings.asked_threads
    if pinned is not None and pinned.arithmetic is not None:
        return keep_pinned(pinned.arithmetic, dtype=dtype, threads=threads)
    device = find_device(settings.device)
    rule = _Rule(device, folder, is_older=pinned is not None)
    chosen, dtype_reason = (dtype, SET) if dtype is not None else rule.choose_dtype()
    count, threads_reason = (threads, SET) if threads is not None else rule.choose_threads(DTYPES[chosen])
    return Arithmetic(dtype=chosen, dtype_reason=dtype_reason, threads=count, threads_reason=threads_reason)


@dataclass(frozen=True)
class _Rule:
    """How `auto` is resolved at the first start of a store, or at the first start of an older store with this release."""

    device: torch.device
    folder: Path
    is_older: bool

    def choose_dtype(self) -> tuple[str, str]:
        """The name of a dtype, and why."""
        default = name_of(default_dtype(self.device))
        if (reason := self._reason_without_trial) is not None:
            return default, reason
        if not has_bf16_units():
            return default, "the processor has no bf16 units"
        float32, bfloat16 = time_dtypes(self._size.matrix)
        name = "bfloat16" if float32 >= BF16_GAIN * bfloat16 else default
        return name, f"measured: bfloat16 {_ms(bfloat16)}, float32 {_ms(float32)}"

    def choose_threads(self, dtype: torch.dtype) -> tuple[int, str]:
        """A number of threads, and why."""
        if (reason := self._reason_without_trial) is not None:
            return 1, reason
        most = min(count_usable_cpus(), MAX_THREADS)
        if most == 1:
            return 1, "one CPU may be used"
        one, many = time_threads(self._size.matrix, dtype, most)
        return most if one >= THREADS_GAIN * many else 1, f"measured: 1 thread {_ms(one)}, {most} threads {_ms(many)}"

    @property
    def _reason_without_trial(self) -> str | None:
        """Why nothing is measured, if so."""
        if self.is_older:
            return OLDER
        if self.device.type != "cpu":
            return f"the device is {self.device.type}"
        if self._size.weights < MIN_WEIGHTS:
            return f"the model has fewer than {MIN_WEIGHTS // 1_000_000} million weights"
        return None

    @cached_property
    def _size(self) -> ModelSize:
        return read_model_size(self.folder)


def _ms(seconds: float) -> str:
    return f"{1_000 * seconds:.1f} ms"
