"""The limit of waiting calls, the answer to a call over it, and health checks, which it does not concern."""

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
from tests.no_limits import NO_LIMITS

UNSETTLED = (EditStatus.QUEUED, EditStatus.APPLYING, EditStatus.DEFERRED)
FEW = Limits(waiting_calls=3, waiting_calls_per_client=2, concurrent_requests=6)


@pytest.fixture
def held(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    """A server whose edits are deferred, count as unsettled, and wait for a retrain that no rule makes due."""
    monkeypatch.setattr(EditStatus, "is_settled", property(lambda status: status not in UNSETTLED))
    window = {"deferred": 1_000_000, "deferred_s": 1e9, **NO_LIMITS}
    settings = tiny_settings(tiny_model, tmp_path, method="locft", limits=FEW)
    with live_server(settings.model_copy(update={"window": type(settings.window)(**window)})) as running:  # type: ignore[arg-type]
        yield running


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether a condition becomes true within ten seconds."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(1_000))


def test_places_are_limited_in_total_and_by_address_and_are_released() -> None:
    room = WaitLimit(3, 2)
    with room.place("a") as first, room.place("a") as second, room.place("a") as third, room.place("b") as other:
        with room.place("c") as late:
            assert (first, second, third, other, late) == (True, True, False, True, False)

    with room.place("a") as fourth, room.place("a") as fifth:
        assert (fourth, fifth) == (True, True)


def test_an_edit_without_a_place_to_wait_is_accepted_and_answered_at_once(held: LiveServer) -> None:

    def post(number: int) -> httpx.Response:
        body = {"prompt": f"The colour of thing {number} is", "target": "red"}
        return httpx.post(f"http://127.0.0.1:{held.port}/edits?wait=60", json=body, timeout=70)

    announcer = held.state.lifecycle.announcer
    with ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(post, number) for number in range(2)]
        assert becomes_true(lambda: len(announcer.awaited_ids()) == 2)

        over = [post(number) for number in range(2, 8)]
        live = held.client.get("/health/live")
        are_done = [call.done() for call in waiting]
        held.state.draining.set()  # as at a stop: whoever waits is answered
        ended = [call.result() for call in waiting]

    assert [answer.status_code for answer in over] == [202] * 6
    assert {answer.headers["retry-after"] for answer in over} == {"1"}
    assert live.status_code == 200
    assert are_done == [False, False]
    assert [answer.status_code for answer in ended] == [202, 202]
    assert len(held.client.get("/edits").json()["items"]) == 8


def test_readiness_is_answered_while_the_database_and_all_route_threads_are_blocked(held: LiveServer) -> None:
    began, go_on = threading.Event(), threading.Event()

    def stuck() -> str:
        began.set()
        go_on.wait(60)
        return "ok"

    held.state.__dict__["readiness"] = Readiness(stuck, patience_s=0.05)
    try:
        answers = [held.client.get("/health/ready") for _ in range(3)]
        check_threads = [thread for thread in threading.enumerate() if thread.name == "errata-ready"]
    finally:
        go_on.set()

    assert began.is_set()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].json()["checks"]["database"] == "no answer within 0.05 s"
    assert len(check_threads) == 1


def test_concurrent_readiness_checks_share_one_query_and_a_later_one_repeats_it() -> None:
    queries: list[int] = []
    go_on = threading.Event()

    def query() -> str:
        queries.append(1)
        go_on.wait(10)
        return f"query {len(queries)}"

    async def ask() -> tuple[list[str], str]:
        readiness = Readiness(query, patience_s=10)
        together = [asyncio.create_task(readiness.check()) for _ in range(5)]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*together), await readiness.check()

    assert asyncio.run(ask()) == (["query 1"] * 5, "query 2")


def test_a_failed_readiness_query_is_reported_and_repeated() -> None:
    def query() -> str:
        raise RuntimeError("a secret")

    async def ask() -> list[str]:
        readiness = Readiness(query)
        return [await readiness.check(), await readiness.check()]

    assert asyncio.run(ask()) == ["the check failed (RuntimeError)"] * 2


def test_the_limits_of_waiting_are_settings() -> None:
    assert Settings(limits={"waiting_calls": 0}).limits.waiting_calls == 0  # type: ignore[arg-type]
