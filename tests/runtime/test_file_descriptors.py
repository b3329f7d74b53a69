"""Connections get the descriptors that the rest of the server leaves."""

import resource
from collections.abc import Callable

import pytest

from service.domain.errors import Refused
from service.runtime import file_descriptors
from service.runtime.file_descriptors import HEALTH_CONNECTIONS, MIN_CONNECTIONS, POOL, RESERVED, limit_connections
from service.settings import Settings

OWN = RESERVED + 2 * POOL * 3


@pytest.fixture
def system_limits(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[tuple[int, int]]]:
    """A system with other limits; the list of the limits that were set."""

    def limit(soft: int, hard: int) -> list[tuple[int, int]]:
        limits_set = [(soft, hard)]
        monkeypatch.setattr(file_descriptors.resource, "getrlimit", lambda _: limits_set[-1])
        monkeypatch.setattr(file_descriptors.resource, "setrlimit", lambda _, pair: limits_set.append(pair))
        return limits_set

    return limit


def test_the_soft_limit_is_raised_as_far_as_the_system_allows(system_limits: Callable[[int, int], list[tuple[int, int]]]) -> None:
    limits_set = system_limits(1024, 100_000)

    assert limit_connections(Settings()).limits.connections == 2_000
    assert limits_set[-1] == (OWN + 2_000, 100_000)


def test_connections_are_fewer_where_the_hard_limit_is_low(system_limits: Callable[[int, int], list[tuple[int, int]]]) -> None:
    system_limits(1024, 1024)

    assert limit_connections(Settings()).limits.connections == 1024 - OWN


def test_the_port_for_health_checks_has_descriptors_of_its_own(
    system_limits: Callable[[int, int], list[tuple[int, int]]],
) -> None:
    system_limits(1024, 1024)

    assert limit_connections(Settings(health_port=8001)).limits.connections == 1024 - OWN - 2 * HEALTH_CONNECTIONS


def test_a_limit_that_leaves_no_connections_is_refused_with_the_figures(
    system_limits: Callable[[int, int], list[tuple[int, int]]],
) -> None:
    system_limits(160, 160)

    with pytest.raises(Refused, match=rf"the limit of open files is 160, and a server needs {OWN + MIN_CONNECTIONS}"):
        limit_connections(Settings())


def test_without_a_limit_nothing_changes(system_limits: Callable[[int, int], list[tuple[int, int]]]) -> None:
    limits_set = system_limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    assert limit_connections(Settings()).limits.connections == 2_000
    assert len(limits_set) == 1
