"""Calls that wait: how many may, what the others are told, and that health checks stand apart from all of them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.api.readiness import Readiness
from service.api.wait_limit import WaitLimit
from service.domain.edit import EditStatus
from service.settings import Limits, Settings
from tests.api.live_server import LiveServer, live_server, tiny_settings

UNSETTLED = (EditStatus.QUEUED, EditStatus.APPLYING, EditStatus.DEFERRED)
FEW = Limits(waiting_calls=3, waiting_calls_per_client=2, concurrent_requests=6)


@pytest.fixture
def held(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    """A server whose edits wait for a retrain that nothing makes due, and are taken for unsettled until then."""
    monkeypatch.setattr(EditStatus, "is_settled", property(lambda status: status not in UNSETTLED))
    window = {"deferred": 1_000_000, "deferred_s": 1e9, "canary_fall": 1, "canary_floor": 0}
    settings = tiny_settings(tiny_model, tmp_path, method="locft", limits=FEW)
    with live_server(settings.model_copy(update={"window": type(settings.window)(**window)})) as running:  # type: ignore[arg-type]
        yield running


def comes(true: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    pause = threading.Event()
    return any(true() or pause.wait(0.01) for _ in range(1_000))


def test_places_are_limited_in_total_and_by_address_and_are_released() -> None:
    room = WaitLimit(3, 2)
    with room.place("a") as first, room.place("a") as second, room.place("a") as third, room.place("b") as other:
        with room.place("c") as late:
            assert (first, second, third, other, late) == (True, True, False, True, False)

    with room.place("a") as again, room.place("a") as too:
        assert (again, too) == (True, True)


def test_an_edit_without_a_place_to_wait_is_accepted_and_answered_at_once(held: LiveServer) -> None:

    def post(number: int) -> httpx.Response:
        body = {"prompt": f"The colour of thing {number} is", "target": "red"}
        return httpx.post(f"http://127.0.0.1:{held.port}/edits?wait=60", json=body, timeout=70)

    announcer = held.state.lifecycle.announcer
    with ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(post, number) for number in range(2)]
        assert comes(lambda: len(announcer.awaited_ids()) == 2)

        over = [post(number) for number in range(2, 8)]
        live = held.client.get("/health/live")
        still = [call.done() for call in waiting]
        held.state.draining.set()  # as at a stop: whoever waits is answered
        ended = [call.result() for call in waiting]

    assert [answer.status_code for answer in over] == [202] * 6
    assert {answer.headers["retry-after"] for answer in over} == {"1"}
    assert live.status_code == 200
    assert still == [False, False]
    assert [answer.status_code for answer in ended] == [202, 202]
    assert len(held.client.get("/edits").json()["items"]) == 8


def test_readiness_is_answered_while_the_database_and_all_threads_of_clients_are_held_up(held: LiveServer) -> None:
    began, go_on = threading.Event(), threading.Event()

    def stuck() -> str:
        began.set()
        go_on.wait(60)
        return "ok"

    held.state.__dict__["readiness"] = Readiness(stuck, patience_s=0.05)
    try:
        answers = [held.client.get("/health/ready") for _ in range(3)]
        looking = [thread for thread in threading.enumerate() if thread.name == "errata-ready"]
    finally:
        go_on.set()

    assert began.is_set()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].json()["checks"]["database"] == "no answer within 0.05 s"
    assert len(looking) == 1


def test_whoever_asks_during_a_look_is_given_its_answer_and_a_later_one_looks_again() -> None:
    looks: list[int] = []
    go_on = threading.Event()

    def look() -> str:
        looks.append(1)
        go_on.wait(10)
        return f"look {len(looks)}"

    async def ask() -> tuple[list[str], str]:
        readiness = Readiness(look, patience_s=10)
        together = [asyncio.create_task(readiness.check()) for _ in range(5)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*together), await readiness.check()

    assert asyncio.run(ask()) == (["look 1"] * 5, "look 2")


def test_a_look_that_fails_is_said_and_is_not_the_last() -> None:
    def look() -> str:
        raise RuntimeError("a secret")

    async def ask() -> list[str]:
        readiness = Readiness(look)
        return [await readiness.check(), await readiness.check()]

    assert asyncio.run(ask()) == ["the check failed (RuntimeError)"] * 2


def test_the_limits_of_waiting_are_settings() -> None:
    assert Settings(limits={"waiting_calls": 0}).limits.waiting_calls == 0  # type: ignore[arg-type]
