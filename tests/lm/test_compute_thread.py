"""Threads that compute follow `torch.set_num_threads`, whatever OMP_NUM_THREADS says."""

import ctypes
import threading
from collections.abc import Iterator

import pytest
import torch

from service.lm.compute_thread import ComputeThread, keep_thread_count


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    torch.set_num_threads(3)  # the tests run under OMP_NUM_THREADS=1
    yield
    torch.set_num_threads(1)


def threads_of_products() -> int:
    """How many threads a product of matrices would use here and now."""
    try:
        return int(ctypes.CDLL(None).omp_get_max_threads())
    except (AttributeError, OSError, TypeError):
        pytest.skip("torch's OpenMP is not to be asked here")


def seen_in(kind: type[threading.Thread], *, first: object = None) -> int:
    seen: list[int] = []
    thread = kind(target=lambda: (callable(first) and first(), seen.append(threads_of_products())))
    thread.start()
    thread.join()
    return seen[0]


def test_a_thread_that_computes_uses_the_threads_that_torch_was_told() -> None:
    assert threads_of_products() == 3
    assert seen_in(ComputeThread) == 3


def test_a_thread_of_another_kind_does_so_once_it_is_asked_to() -> None:
    assert seen_in(threading.Thread) != 3, "torch mends this itself by now: remove ComputeThread"
    assert seen_in(threading.Thread, first=keep_thread_count) == 3
