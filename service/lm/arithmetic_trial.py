"""A short trial of the CPU: with which dtype, and on how many threads, a matrix of a model's blocks is multiplied fastest.

A fit, and a batch of answers, spend most of their time in such products. The best times are compared, because other work on the
machine disturbs them least.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

ROWS = 384  # tokens that a typical fit computes together
MAX_SIDE = 1_536  # of the matrix: the ratios hold for larger ones, and one product takes some 0.03 s
ROUNDS = 25
MIN_ROUNDS = 2
ENOUGH_S = 0.25  # after which no further round begins
BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # as torch names them, on x86 and on ARM


@dataclass(frozen=True)
class Contestant:
    """A dtype and a number of threads to be timed."""

    dtype: torch.dtype
    threads: int


def has_bf16_units() -> bool:
    """Whether the processor multiplies in bf16 itself. Elsewhere that is emulated, and slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(unit, False) for unit in BF16_UNITS)


def time_dtypes(matrix: tuple[int, int]) -> tuple[float, float]:
    """The seconds of one thread for ROWS rows through a matrix of these sides, in float32 and in bfloat16.

    It is the thread's own CPU time, which does not grow while the thread waits for a busy CPU.
    """
    float32, bfloat16 = _best_times(matrix, [Contestant(torch.float32, 1), Contestant(torch.bfloat16, 1)], time.thread_time)
    return float32, bfloat16


def time_threads(matrix: tuple[int, int], dtype: torch.dtype, threads: int) -> tuple[float, float]:
    """The seconds for ROWS rows through a matrix of these sides, on one thread and on `threads` threads."""
    one, many = _best_times(matrix, [Contestant(dtype, 1), Contestant(dtype, threads)], time.perf_counter)
    return one, many


@torch.inference_mode()
def _best_times(matrix: tuple[int, int], contestants: Sequence[Contestant], clock: Callable[[], float]) -> list[float]:
    """The best time of each contestant; they take turns. Leaves torch in this thread with the threads of the last one."""
    out, width = (min(side, MAX_SIDE) for side in matrix)
    operands = {
        dtype: (torch.ones(ROWS, width, dtype=dtype), torch.ones(out, width, dtype=dtype))
        for dtype in {contestant.dtype for contestant in contestants}
    }
    best = [float("inf")] * len(contestants)
    enough_at = time.perf_counter() + ENOUGH_S
    for turn in range(ROUNDS):
        if turn >= MIN_ROUNDS and time.perf_counter() > enough_at:
            break
        for index, contestant in enumerate(contestants):
            torch.set_num_threads(contestant.threads)
            functional.linear(*operands[contestant.dtype])  # makes the threads, and is not timed
            began_at = clock()
            functional.linear(*operands[contestant.dtype])
            best[index] = min(best[index], clock() - began_at)
    return best
