"""Doorbells, in process and on Redis alike; and the cost of an absent Redis."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from service.client.local_server import free_port
from service.wakeup.doorbell import Doorbell
from service.wakeup.in_process import InProcessDoorbell
from service.wakeup.redis_stream import RedisDoorbell
from tests.servers import private_redis, redis_prefix


@pytest.fixture(params=["in process", "redis"])
def doorbell(request: pytest.FixtureRequest) -> Iterator[Doorbell]:
    if request.param == "in process":
        bell: Doorbell = InProcessDoorbell()
        yield bell
        bell.close()
    else:
        with redis_prefix() as (url, prefix):
            bell = RedisDoorbell(url, prefix=prefix)
            yield bell
            bell.close()


@pytest.fixture
def redis_doorbell() -> Iterator[Callable[[], RedisDoorbell]]:
    """A function that makes doorbells of one stream, as several processes would."""
    with redis_prefix() as (url, prefix):
        bells: list[RedisDoorbell] = []

        def make() -> RedisDoorbell:
            bells.append(RedisDoorbell(url, prefix=prefix))
            return bells[-1]

        yield make
        for bell in bells:
            bell.close()


def test_a_ring_before_the_wait_ends_it(doorbell: Doorbell) -> None:
    doorbell.ring("e")

    assert doorbell.wait(5.0)


def test_a_ring_ends_a_wait(doorbell: Doorbell) -> None:
    timer = threading.Timer(0.05, doorbell.ring, ["e"])
    timer.start()
    began = time.monotonic()

    assert doorbell.wait(10.0)
    assert time.monotonic() - began < 5.0
    timer.join()


def test_rings_are_joined_and_used_up(doorbell: Doorbell) -> None:
    for n in range(50):
        doorbell.ring(str(n))

    assert doorbell.wait(5.0)
    doorbell.acknowledge()
    assert not doorbell.wait(0.05)


def test_without_a_ring_a_wait_ends_in_time(doorbell: Doorbell) -> None:
    began = time.monotonic()

    assert not doorbell.wait(0.1)
    assert 0.09 < time.monotonic() - began < 5.0


def test_closing_ends_a_wait(doorbell: Doorbell) -> None:
    timer = threading.Timer(0.05, doorbell.close)
    timer.start()
    began = time.monotonic()

    doorbell.wait(20.0)

    assert time.monotonic() - began < 10.0
    timer.join()


def test_a_ring_of_another_process_ends_a_wait(redis_doorbell: Callable[[], RedisDoorbell]) -> None:
    ringing, waiting = redis_doorbell(), redis_doorbell()

    ringing.ring("e")

    assert waiting.wait(5.0)


def test_a_ring_goes_to_one_consumer_and_to_another_if_that_one_dies(
    redis_doorbell: Callable[[], RedisDoorbell], monkeypatch: pytest.MonkeyPatch
) -> None:
    ringing, dying, living = redis_doorbell(), redis_doorbell(), redis_doorbell()
    ringing.ring("e")
    assert dying.wait(5.0)
    assert not living.wait(0.05)

    monkeypatch.setattr("service.wakeup.redis_stream.STALE_MS", 0)

    assert living.wait(5.0)
    living.acknowledge()
    assert not living.wait(0.05)


def test_an_acknowledged_ring_is_deleted(redis_doorbell: Callable[[], RedisDoorbell]) -> None:
    doorbell = redis_doorbell()
    doorbell.ring("e")
    assert doorbell.wait(5.0)
    assert doorbell._reader.xlen(doorbell._key) == 1

    doorbell.acknowledge()

    assert doorbell._reader.xlen(doorbell._key) == 0


def test_without_redis_a_ring_costs_little_and_wakes_this_process() -> None:
    doorbell = RedisDoorbell(f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()

    for _ in range(100):
        doorbell.ring("e")

    assert time.monotonic() - began < 2.0  # one failure of at most 0.05 s, then no ring is sent for a second
    assert doorbell.wait(1.0)
    assert not doorbell.wait(0.05)
    doorbell.close()


def test_a_dead_redis_costs_little_and_is_used_again_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wakeup.redis_stream.PAUSE_S", 0.2)
    with private_redis() as (url, process):
        doorbell, other = RedisDoorbell(url), RedisDoorbell(url)
        assert not doorbell.wait(0.01)
        process.kill()
        process.wait()

        began = time.monotonic()
        for _ in range(100):
            other.ring("e")
        rung_in_s = time.monotonic() - began
        assert not doorbell.wait(0.01)
        doorbell.ring("e")
        own_ring_came = doorbell.wait(1.0)
    with private_redis(urlsplit(url).port):
        until = time.monotonic() + 30.0
        other_ring_came = False
        while not other_ring_came and time.monotonic() < until:  # a ring during the pause is not repeated
            other.ring("e")
            other_ring_came = doorbell.wait(0.1)
        doorbell.close()
        other.close()

    assert rung_in_s < 1.0
    assert own_ring_came
    assert other_ring_came


def test_a_frozen_redis_costs_no_request_and_rings_of_this_process_still_work() -> None:
    with private_redis() as (url, process):
        doorbell = RedisDoorbell(url)
        reads: list[object] = []
        entries = doorbell._entries
        doorbell._entries = lambda wait_s: reads.append(wait_s) or entries(wait_s)  # type: ignore[method-assign,func-returns-value]
        assert not doorbell.wait(0.01)
        process.send_signal(signal.SIGSTOP)
        try:
            doorbell.wait(0.01)  # finds out
            reads.clear()
            for _ in range(10):
                doorbell.ring("e")
                assert doorbell.wait(1.0)
        finally:
            process.send_signal(signal.SIGCONT)
        doorbell.close()

    assert reads == []  # each would have kept the worker from its rings for more than a second


def test_a_redis_that_lost_all_its_data_is_used_again() -> None:
    with private_redis() as (url, _):
        doorbell, other = RedisDoorbell(url), RedisDoorbell(url)
        assert not doorbell.wait(0.01)
        other._ringer.flushall()
        other.ring("e")

        assert any(doorbell.wait(1.0) for _ in range(5))
        doorbell.close()
        other.close()
