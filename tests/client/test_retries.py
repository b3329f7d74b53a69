"""Requests are repeated while the server is busy or away, within bounds, and a POST takes effect once."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from service.client.errors import ServerProblem, Unreachable
from service.client.retries import NO_RETRIES, Retries, read_retry_after
from service.client.steps import Reply
from tests.client.scripted_network import Break, ScriptedNetwork

AWAY = httpx.ReadError("reset")
REFUSED = httpx.ConnectError("refused")


def busy(status: int = 503, after: str = "2") -> httpx.Response:
    return httpx.Response(status, headers={"Retry-After": after}, json={"detail": "too much waits"})


def test_an_unanswered_request_is_repeated_under_the_same_key() -> None:
    network = ScriptedNetwork(503, AWAY, REFUSED, httpx.RemoteProtocolError("half"))

    client = network.client()
    client.rollback(0, "why")
    client.rollback(0, "why")

    assert len(network.keys) == 6
    assert len(set(network.keys[:5])) == 1 and network.keys[5] != network.keys[0]


def test_the_asynchronous_client_repeats_a_request_in_the_same_way() -> None:
    network, asynchronous = (ScriptedNetwork(busy(429, "3"), AWAY, REFUSED) for _ in range(2))

    network.client().retrain("why")
    asyncio.run(asynchronous.async_client().retrain("why"))

    assert asynchronous.pauses == network.pauses == [3.0, 0.2, 0.2]
    assert len(set(asynchronous.keys)) == 1 and len(asynchronous.keys) == 4


def test_a_key_of_the_caller_is_sent_as_it_is() -> None:
    network = ScriptedNetwork(AWAY)

    network.client().post_edit({"prompt": "a", "target": "b"}, key="mine")

    assert network.keys == ["mine", "mine"]


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    network = ScriptedNetwork(REFUSED)

    with pytest.raises(Unreachable, match=r"^the server cannot be reached \(ConnectError\)$"):
        network.client().rollback(0, "why")

    assert network.pauses == []


def test_a_server_that_answered_before_is_waited_for_while_it_restarts() -> None:
    network = ScriptedNetwork(httpx.Response(200, json={}), REFUSED, REFUSED)
    client = network.client()
    client.get_model()

    client.get_model()

    assert len(network.pauses) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_is_as_long_as_the_server_says(status: int) -> None:
    network = ScriptedNetwork(busy(status, "7"), busy(status, "4"), httpx.Response(status))

    network.client().get_model()

    assert network.pauses == [7.0, 4.0, 1.0]


def test_a_busy_server_is_waited_for_within_a_bound() -> None:
    network = ScriptedNetwork(*(busy() for _ in range(100)))

    with pytest.raises(ServerProblem, match="too much waits") as caught:
        network.client(Retries(busy_s=11)).get_model()

    assert caught.value.status == 503
    assert sum(network.pauses) == 10


def test_a_pause_that_would_end_after_the_bound_is_not_begun() -> None:
    network = ScriptedNetwork(busy(after="3600"))

    with pytest.raises(ServerProblem):
        network.client().get_model()

    assert network.pauses == []


def test_a_server_that_stays_away_is_waited_for_within_a_bound() -> None:
    network = ScriptedNetwork(*([AWAY] * 1_000))

    with pytest.raises(Unreachable, match="ReadError"):
        network.client(Retries(away_s=5)).get_model()

    assert sum(network.pauses) == pytest.approx(4.8)


@pytest.mark.parametrize("broken", [busy(after="0"), AWAY])
def test_without_retries_each_request_is_sent_once(broken: Break) -> None:
    network = ScriptedNetwork(broken)

    with pytest.raises((ServerProblem, Unreachable)):
        network.client(NO_RETRIES).get_model()

    assert len(network.requests) == 1


def test_other_problems_are_not_repeated() -> None:
    network = ScriptedNetwork(httpx.Response(500, json={"detail": "broken"}))

    with pytest.raises(ServerProblem, match="broken"):
        network.client().get_model()


def test_a_date_in_retry_after_is_the_time_until_then() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)

    seconds = [read_retry_after(Reply(503, {"retry-after": text}, b""), 1.0) for text in (soon, "12", "soon", "")]

    assert 25 < seconds[0] <= 30
    assert seconds[1:] == [12.0, 1.0, 1.0]
