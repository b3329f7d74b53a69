"""A long function done piece by piece: it moves only while somebody waits for it."""

import threading
from collections.abc import Callable

import pytest

from service.background.cooperative_task import CooperativeTask


def counting(most: int, seen: list[int]) -> Callable[[Callable[[], None]], str]:
    def work(between: Callable[[], None]) -> str:
        for number in range(most):
            seen.append(number)
            between()
        return "done"

    return work


def test_the_work_moves_one_step_at_a_time_and_its_result_is_kept() -> None:
    seen: list[int] = []
    stepwise = CooperativeTask(counting(3, seen), step_s=0)

    lengths = []
    while not stepwise.run_step():
        lengths.append(len(seen))

    assert lengths == [1, 2, 3]
    assert stepwise.result == "done"
    assert stepwise.run_step()


def test_nothing_is_done_before_it_is_asked_for() -> None:
    seen: list[int] = []
    stepwise = CooperativeTask(counting(1, seen), step_s=0)

    stepwise.cancel()

    assert seen == []


def test_small_steps_are_one_step_until_its_time_is_over() -> None:
    seen: list[int] = []

    assert CooperativeTask(counting(100, seen), step_s=3600).run_step()

    assert len(seen) == 100


def test_what_the_work_raises_is_raised_where_it_is_waited_for() -> None:
    def work(between: Callable[[], None]) -> None:
        between()
        raise ValueError("no")

    stepwise = CooperativeTask(work, step_s=0)
    assert not stepwise.run_step()

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            stepwise.run_step()


def test_work_that_is_dropped_ends_and_cleans_up() -> None:
    ended = threading.Event()

    def work(between: Callable[[], None]) -> None:
        try:
            while True:
                between()
        finally:
            ended.set()

    stepwise = CooperativeTask(work, step_s=0)
    stepwise.run_step()

    stepwise.cancel()
    stepwise.cancel()

    assert ended.is_set()
