"""What a doorbell promises, in process and on Redis alike; and what Redis' absence may cost."""

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
        made: Doorbell = InProcessDoorbell()
        yield made
        made.close()
    else:
        with redis_prefix() as (url, prefix):
            made = RedisDoorbell(url, prefix=prefix)
            yield made
            made.close()


@pytest.fixture
def redis_doorbell() -> Iterator[Callable[[], RedisDoorbell]]:
    """Makes doorbells of one stream, as several processes would."""
    with redis_prefix() as (url, prefix):
        made: list[RedisDoorbell] = []

        def make() -> RedisDoorbell:
            made.append(RedisDoorbell(url, prefix=prefix))
            return made[-1]

        yield make
        for one in made:
            one.close()


def test_a_ring_before_the_wait_is_heard(doorbell: Doorbell) -> None:
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
    doorbell.heard()
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


def test_a_ring_of_another_process_is_heard(redis_doorbell: Callable[[], RedisDoorbell]) -> None:
    ringing, waiting = redis_doorbell(), redis_doorbell()

    ringing.ring("e")

    assert waiting.wait(5.0)


def test_a_ring_is_one_consumers_and_is_left_to_others_if_it_dies(
    redis_doorbell: Callable[[], RedisDoorbell], monkeypatch: pytest.MonkeyPatch
) -> None:
    ringing, dying, living = redis_doorbell(), redis_doorbell(), redis_doorbell()
    ringing.ring("e")
    assert dying.wait(5.0)
    assert not living.wait(0.05)

    monkeypatch.setattr("service.wakeup.redis_stream.STALE_MS", 0)

    assert living.wait(5.0)
    living.heard()
    assert not living.wait(0.05)


def test_a_ring_that_was_heard_is_not_kept(redis_doorbell: Callable[[], RedisDoorbell]) -> None:
    doorbell = redis_doorbell()
    doorbell.ring("e")
    assert doorbell.wait(5.0)
    assert doorbell._reader.xlen(doorbell._key) == 1

    doorbell.heard()

    assert doorbell._reader.xlen(doorbell._key) == 0


def test_without_redis_a_ring_costs_little_and_this_process_hears_it() -> None:
    doorbell = RedisDoorbell(f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()

    for _ in range(100):
        doorbell.ring("e")

    assert time.monotonic() - began < 2.0  # one failure of at most 0.05 s, then Redis is left alone for a second
    assert doorbell.wait(1.0)
    assert not doorbell.wait(0.05)
    doorbell.close()


def test_a_redis_that_dies_costs_little_and_is_used_again_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
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
        own_is_heard = doorbell.wait(1.0)
    with private_redis(urlsplit(url).port):
        until = time.monotonic() + 30.0
        others_are_heard = False
        while not others_are_heard and time.monotonic() < until:  # a ring made while it was being left alone is not repeated
            other.ring("e")
            others_are_heard = doorbell.wait(0.1)
        doorbell.close()
        other.close()

    assert rung_in_s < 1.0
    assert own_is_heard
    assert others_are_heard


def test_a_redis_that_is_frozen_costs_no_request_and_this_process_is_still_heard() -> None:
    with private_redis() as (url, process):
        doorbell = RedisDoorbell(url)
        asked: list[object] = []
        entries = doorbell._entries
        doorbell._entries = lambda wait_s: asked.append(wait_s) or entries(wait_s)  # type: ignore[method-assign,func-returns-value]
        assert not doorbell.wait(0.01)
        process.send_signal(signal.SIGSTOP)
        try:
            doorbell.wait(0.01)  # finds out
            asked.clear()
            for _ in range(10):
                doorbell.ring("e")
                assert doorbell.wait(1.0)
        finally:
            process.send_signal(signal.SIGCONT)
        doorbell.close()

    assert asked == []  # each would have kept the worker from its rings for more than a second


def test_a_redis_that_went_away_and_forgot_everything_is_used_again() -> None:
    with private_redis() as (url, _):
        doorbell, other = RedisDoorbell(url), RedisDoorbell(url)
        assert not doorbell.wait(0.01)
        other._ringer.flushall()
        other.ring("e")

        assert any(doorbell.wait(1.0) for _ in range(5))
        doorbell.close()
        other.close()
