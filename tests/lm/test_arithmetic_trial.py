"""The trial of the CPU: its times, its bounds, and what it leaves alone."""

import time
from collections.abc import Iterator
from itertools import count

import pytest
import torch

from service.lm import arithmetic_trial
from service.lm.arithmetic_trial import has_bf16_units, time_dtypes, time_threads


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def test_both_contestants_get_a_time_and_nothing_random_is_drawn() -> None:
    before = torch.get_rng_state()

    times = [*time_dtypes((24, 16)), *time_threads((24, 16), torch.float32, 2)]

    assert all(0 < seconds < 10 for seconds in times)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_matrix_of_any_size_is_cut_so_that_a_trial_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic_trial, "ROWS", 2)
    monkeypatch.setattr(arithmetic_trial, "ENOUGH_S", 0.0)

    time_dtypes((1_000_000_000, 1_000_000_000))  # a whole one would be 4 exabytes


def test_a_trial_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count()
    monkeypatch.setattr(arithmetic_trial.time, "perf_counter", lambda: float(next(reads)))

    time_threads((24, 16), torch.float32, 1)

    assert next(reads) < 20


def test_bf16_units_are_those_that_torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"bf16": True, "sve": False}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert has_bf16_units() is expected


def test_waiting_for_a_busy_cpu_does_not_make_a_dtype_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    product = arithmetic_trial.functional.linear

    def interrupted(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        if rows.dtype == torch.bfloat16:
            time.sleep(0.05)
        return product(rows, matrix)

    monkeypatch.setattr(arithmetic_trial.functional, "linear", interrupted)

    assert time_dtypes((24, 16))[1] < 0.04
