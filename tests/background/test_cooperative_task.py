"""A cooperative task runs only while a caller waits for a step."""

import threading
from collections.abc import Callable

import pytest

from service.background.cooperative_task import CooperativeTask


def count_to(most: int, numbers: list[int]) -> Callable[[Callable[[], None]], str]:
    def work(pause: Callable[[], None]) -> str:
        for number in range(most):
            numbers.append(number)
            pause()
        return "done"

    return work


def test_the_work_runs_one_step_at_a_time_and_has_a_result() -> None:
    numbers: list[int] = []
    task = CooperativeTask(count_to(3, numbers), step_s=0)

    lengths = []
    while not task.run_step():
        lengths.append(len(numbers))

    assert lengths == [1, 2, 3]
    assert task.result == "done"
    assert task.run_step()


def test_the_work_does_nothing_before_the_first_step() -> None:
    numbers: list[int] = []
    task = CooperativeTask(count_to(1, numbers), step_s=0)

    task.cancel()

    assert numbers == []


def test_one_step_lasts_for_its_time() -> None:
    numbers: list[int] = []

    assert CooperativeTask(count_to(100, numbers), step_s=3600).run_step()

    assert len(numbers) == 100


def test_an_error_of_the_work_is_raised_by_its_steps() -> None:
    def work(pause: Callable[[], None]) -> None:
        pause()
        raise ValueError("no")

    task = CooperativeTask(work, step_s=0)
    assert not task.run_step()

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            task.run_step()


def test_cancelled_work_ends_and_cleans_up() -> None:
    ended = threading.Event()

    def work(pause: Callable[[], None]) -> None:
        try:
            while True:
                pause()
        finally:
            ended.set()

    task = CooperativeTask(work, step_s=0)
    task.run_step()

    task.cancel()
    task.cancel()

    assert ended.is_set()
